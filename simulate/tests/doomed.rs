//! What would abort the process is left where it is. A process of its own: the thread that would do
//! so stays in the hook for panics, which the usual harness wants to change at its end.

use quorate_simulate::apart;

struct PanicsAgain;

impl Drop for PanicsAgain {
    fn drop(&mut self) {
        panic!("again");
    }
}

fn main() {
    assert_eq!(apart(|| 1), Some(1));
    let doomed = || {
        let _again = PanicsAgain;
        panic!("at first");
    };
    assert_eq!(apart::<i32>(doomed), None);
    assert_eq!(apart(|| 2), Some(2));
}
