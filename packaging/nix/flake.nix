# A flake without inputs: `packaging/nix/build` puts it beside a folder for each system, with `bin` and `share` of the
# archive. `builtin:buildenv` is part of Nix, so it takes neither nixpkgs nor a shell, and works offline.
{
  description = "Gives any process a health endpoint: one tiny static binary";

  outputs = { self }:
    let
      entries = builtins.readDir ./.;
      systems = builtins.filter (name: entries.${name} == "directory") (builtins.attrNames entries);
      package = system: derivation {
        name = "livelet-${builtins.readFile ./version}";
        inherit system;
        builder = "builtin:buildenv";
        manifest = builtins.toFile "manifest" "";
        # One package to link: active, with priority 5, one output.
        derivations = [ "true" 5 1 (./. + "/${system}") ];
      };
    in
    {
      packages = builtins.listToAttrs
        (map (system: { name = system; value.default = package system; }) systems);
    };
}
