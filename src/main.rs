//! The livelet program: dispatch and exit code.

use std::env;
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
            supervisor::run(&config).map_err(|error| (error.exit_code(), error.to_string()))
        }
        Ok(Command::Probe(question)) => {
            let (holds, output) = probe::probe(question, probe::has_colours());
            // Output that can't be written does not change the exit code.
            let _ = std::io::stdout().write_all(&output);
            Ok(u8::from(!holds))
        }
        Ok(Command::Notify(assignments)) => {
            let sent = notify::notify(env::var_os("NOTIFY_SOCKET"), &assignments);
            sent.map(|()| 0).map_err(|error| (1, error.to_string()))
        }
        Ok(Command::Install(path)) => install::install(&path)
            .map(|()| 0)
            .map_err(|error| (exit_code::FAILURE, error.to_string())),
        Ok(Command::Help(page)) => print(&cli::help(page)),
        Ok(Command::Version) => print(cli::VERSION),
        Err(error) => Err((exit_code::FAILURE, error.to_string())),
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
        .map_err(|error| {
            (
                exit_code::FAILURE,
                format!("stdout: cannot write: {}", log::Cause(&error)),
            )
        })
}
