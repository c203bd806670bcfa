//! What a version promises, attacked from outside.

mod alike;
mod cases;
mod change;
mod decides;
mod loads;
mod slices;
