//! The messages and services of the daemon, each in the module of its package.

#![allow(clippy::all, rustdoc::all)]

include!(concat!(env!("OUT_DIR"), "/protos.rs"));
