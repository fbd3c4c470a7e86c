//! Ctrl-C and SIGTERM: the first one ends the build in order, the second ends the process.

use anyhow::{Context, Result};
use maestro_executor::runner::Cancel;
use signal_hook::consts::{SIGINT, SIGTERM};

/// Makes the first interrupt cancel and the second one end the process at once.
pub fn cancel_on_interrupt(cancel: &Cancel) -> Result<()> {
    for signal in [SIGINT, SIGTERM] {
        let code = 128 + signal;
        signal_hook::flag::register_conditional_shutdown(signal, code, cancel.flag())
            .and_then(|_| signal_hook::flag::register(signal, cancel.flag()))
            .context("cannot handle signals")?;
    }
    Ok(())
}
