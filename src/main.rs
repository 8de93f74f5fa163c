//! The livelet program: dispatch and exit code.

use std::env;
use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;

use livelet::cli::{self, Command};
use livelet::command::{install, probe};
use livelet::{exit_code, log, notify, supervisor};

fn main() -> ExitCode {
    let outcome = match cli::parse(env::args_os().collect(), &|name| env::var_os(name)) {
        Ok(Command::Run(config)) => {
            log::set_level(config.log);
            for (name, _) in env::vars_os() {
                if let Some(unknown) = cli::unknown_variable(&name) {
                    log::notice(format_args!("{unknown}"));
                }
            }
            supervisor::run(&config).map_err(|error| Failure::new(error.exit_code(), &error))
        }
        Ok(Command::Probe(question)) => {
            let probed = probe::probe(question, probe::has_colours());
            // Output that can't be written does not change the exit code.
            let _ = std::io::stdout().write_all(&probed.output);
            Ok(u8::from(!probed.passed))
        }
        Ok(Command::Notify(assignments)) => {
            let sent = notify::notify(env::var_os("NOTIFY_SOCKET"), &assignments);
            sent.map(|()| 0).map_err(|error| Failure::new(1, &error))
        }
        Ok(Command::Install(path)) => install::install(&path)
            .map(|()| 0)
            .map_err(|error| Failure::new(exit_code::FAILURE, &error)),
        Ok(Command::Help(page)) => print(&cli::help(page)),
        Ok(Command::Version) => print(cli::VERSION),
        Err(error) => Err(Failure::new(exit_code::FAILURE, &error)),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(Failure { code, message }) => {
            log::failure(format_args!("{message}"));
            ExitCode::from(code)
        }
    }
}

/// End of livelet with an error.
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn new(code: u8, error: &dyn Display) -> Failure {
        let message = error.to_string();
        Failure { code, message }
    }
}

fn print(text: &str) -> Result<u8, Failure> {
    let written = std::io::stdout().write_all(text.as_bytes());
    written.map(|()| 0).map_err(|cause| {
        let message = format!("stdout: cannot write: {}", log::Cause(&cause));
        Failure::new(exit_code::FAILURE, &message)
    })
}
