//! The program; all of it is in the library, so that man pages and completions come from the same
//! definitions.

use std::process::ExitCode;

fn main() -> ExitCode {
    fleetctl::main()
}
