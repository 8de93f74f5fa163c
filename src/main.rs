//! The livelet program: dispatch and exit code.

use std::env;
use std::io::Write as _;
use std::process::ExitCode;

use livelet::cli::{self, Command};
use livelet::{log, run};

/// livelet's own failure, as `docker run` reports its own.
const EXIT_FAILURE: u8 = 125;

fn main() -> ExitCode {
    let outcome = match cli::parse(env::args_os(), |name| env::var_os(name)) {
        Ok(Command::Run(config)) => {
            log::set_level(config.log);
            run::run(&config).map_err(|error| (error.exit_code(), error.to_string()))
        }
        Ok(Command::Help) => print(&cli::help()),
        Ok(Command::Version) => print(cli::VERSION),
        Err(error) => Err((EXIT_FAILURE, error.to_string())),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err((code, message)) => {
            log::failure(format_args!("{message}"));
            ExitCode::from(code)
        }
    }
}

fn print(text: &str) -> Result<u8, (u8, String)> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map(|()| 0)
        .map_err(|error| (EXIT_FAILURE, format!("stdout: cannot write: {error}")))
}
