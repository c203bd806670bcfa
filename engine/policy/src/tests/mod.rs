//! What a version promises, attacked from outside.

mod alike;
mod change;
mod decides;
mod loads;
