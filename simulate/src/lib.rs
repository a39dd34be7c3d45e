//! Whole clusters in one thread: the real storage, consensus, eventual path and gateways, on
//! simulated clock, randomness, network and disks. One seed decides the cluster, what clients do,
//! what is done to nodes, and when; so a number replays a run.
//!
//! Start at [`Plan::of`] (what a seed decides) and [`run`] (plays it). `world` has the nodes,
//! `faults` what befalls them, `work` the clients, `ending` what must be so once all is whole,
//! `history` the recording and its judge, `trace` what happened, in words and as one hash;
//! `shrink` makes a plan that fails smaller.
//!
//! Not here: sockets and processes (`quorate-lab` has those), and arguments (the command line).

mod alone;
mod ask;
mod ending;
mod faults;
mod history;
mod message;
mod plan;
mod run;
mod scene;
mod settings;
mod shrink;
mod story;
mod telling;
mod thorough;
mod trace;
mod work;
mod world;

pub use alone::{apart, hear_panics, heard_panics, seeded_runtime};
pub use faults::{Cutting, Fault, Part, Planned};
pub use history::Found;
pub use plan::{Chosen, Family, Mistakes, Options, Plan};
pub use run::{Outcome, Running, Spent, run};
pub use settings::{SETTINGS, Setting, Settings};
pub use shrink::{Budget, Class, Shrunk, shrink};
pub use story::{STORIES, Story, play};
pub use work::Work;
