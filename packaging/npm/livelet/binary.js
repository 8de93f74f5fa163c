// Where the platform's package has the binary.
module.exports = () => {
  const name = `@livelet/linux-${process.arch}`;
  try {
    return require.resolve(`${name}/livelet`);
  } catch {
    throw new Error(`${name} is not installed: on Linux, x64 and arm64, npm installs it with livelet, unless `
      + 'optional dependencies are left out (--omit=optional)');
  }
};
