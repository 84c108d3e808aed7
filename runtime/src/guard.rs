//! Libraries that panic at some broken files where they could fail; here that is an error.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// A panic of this thread will be caught, and is nobody's concern but the catcher's.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// The result, or the message of a panic, of which nothing is printed. `run` must leave nothing half done
/// that is used afterwards.
pub fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !CAUGHT.get() {
                others(info);
            }
        }));
    });
    let outer = CAUGHT.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(run));
    CAUGHT.set(outer);
    result.map_err(|payload| message(&*payload))
}

fn message(payload: &dyn Any) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("it gave up").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error() {
        assert_eq!(guarded(|| 7), Ok(7));
        let number = 5;
        assert_eq!(guarded(|| assert!(number < 3, "{number} is too large")), Err("5 is too large".into()));
        assert_eq!(guarded(|| guarded(|| panic!("inner")).is_err()), Ok(true));
        assert!(!CAUGHT.get());
    }
}
