//! Configuration as people keep it: folders, and YAML, TOML or JSON files, as keys and back.
//!
//! What a step is, and how it is made, is in `quorate_client::config`.

mod document;
mod lines;
mod source;
mod template;
mod variables;

pub use document::{DocumentError, Form, flatten, nest, parse, write};
pub use lines::{LineChange, line_changes};
pub use source::{SourceError, read_bundle};
pub use template::{TemplateError, render};
pub use variables::{VariableError, variables};
