//! Ctrl-C and its like: the first asks the program to save what it does, a later one ends it at once.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hotfire_core::CoreError;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// Whether the program was stopped from the keyboard.
static FROM_KEYBOARD: AtomicBool = AtomicBool::new(false);

/// A flag that the first Ctrl-C, or a like signal, sets; one that comes a second or more later ends the process at once.
pub fn stop_on_interrupt() -> anyhow::Result<Arc<AtomicBool>> {
    // Whoever wants to stop a job may signal its group and each of its processes: that is one wish, not two.
    const ONE_WISH: Duration = Duration::from_secs(1);
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    if !hangup_is_ignored() {
        signals.add_signal(SIGHUP)?;
    }
    std::thread::spawn(move || {
        let mut first: Option<Instant> = None;
        for signal in signals.forever() {
            FROM_KEYBOARD.fetch_or(signal == SIGINT, Ordering::Relaxed);
            flag.store(true, Ordering::Relaxed);
            if first.get_or_insert_with(Instant::now).elapsed() >= ONE_WISH {
                end();
                std::process::exit(CoreError::INTERRUPTED);
            }
        }
    });
    Ok(stop)
}

/// Ends a program that was stopped. One that was stopped from the keyboard dies of the signal: a shell goes on with its
/// loop after any other end. The exit code is the same to it.
pub fn end() -> ExitCode {
    if FROM_KEYBOARD.load(Ordering::Relaxed) {
        let _ = emulate_default_handler(SIGINT);
    }
    ExitCode::from(u8::try_from(CoreError::INTERRUPTED).unwrap_or(1))
}

/// Whether the process was started to outlive its terminal, as `nohup` does; `false` where there is no `/proc`.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (SIGHUP - 1)) != 0)
}
