//! The harness of the end-to-end suites: what they share to drive a real `s3d` process from outside.
//!
//! - [`s3d`]: the process: start, stop, kill, trace, restart, check. The only module that knows its command line.
//! - [`cluster`]: several of them with one `cluster.toml`; [`netns`]: hosts that can be cut off from each other.
//! - [`http`], [`sigv4`], [`s3`]: a small blocking HTTP client, a signer whose every step can be forged, and the few S3
//!   calls the suites need.
//! - [`history`], [`versions`]: what was written and acknowledged, and what a bucket without and with versioning may
//!   therefore hold.
//! - [`boto`]: boto3 with its default retries, under load until it is told to end.
//! - [`workload`], `writer`: writers with unique bodies, and the check of what they left.
//! - [`file_writer`]: writers of files in a mount, and the check of what they left.
//! - [`shardlog`]: the files of a shard node's log, from outside.
//! - [`namespace`], [`views`]: a model of what POSIX and S3 may see of one bucket, and random steps that are compared with it.
//! - [`linear`]: clients on few keys through several gateways, and a checker of what they saw.
//! - [`fault`]: what befalls a box of a cluster while clients work.
//! - [`nats`]: a NATS server, a client of its protocol, and signed envelopes.
//! - [`disk`]: loop mounts that can be filled, shut down and mounted again.
//! - [`lab`]: machines under systemd on a network of their own.
//! - [`mount`]: buckets mounted as file systems, or any other directory for the suites of a file system.
//! - [`clients`]: aws cli, boto3, s3cmd, rclone, restic, s3fs, pointed at one process.
//! - [`tree`]: trees of files for the clients to carry; [`attributes`]: trees with all that a file system keeps of files.
//! - [`random`], [`knobs`], [`shell`]: seeded randomness, environment variables, subprocesses.

pub mod attributes;
pub mod boto;
pub mod clients;
pub mod cluster;
pub mod disk;
pub mod fault;
pub mod file_writer;
pub mod history;
pub mod http;
pub mod knobs;
pub mod lab;
pub mod linear;
pub mod mount;
pub mod namespace;
pub mod nats;
pub mod netns;
pub mod random;
pub mod s3;
pub mod s3d;
pub mod shardlog;
pub mod shell;
pub mod sigv4;
pub mod tree;
pub mod versions;
pub mod views;
pub mod workload;
mod writer;
