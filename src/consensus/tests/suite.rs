//! openraft's own suite for log stores and state machines. It says nothing about durability.

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

use super::super::applier::Applier;
use super::super::log_store::LogStore;
use super::super::state_machine::StateMachine;
use super::super::types::TypeConfig;
use super::options;
use crate::catalog::Catalog;
use crate::log::{self, Log};

struct Builder;

/// The suite applies entries that it never logged, and purges some that it never applied: so here nothing ties the two.
impl StoreBuilder<TypeConfig, LogStore, StateMachine, tempfile::TempDir> for Builder {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path());
        let catalog = Catalog::open(&dir.path().join("catalog"), options.catalog.clone()).unwrap();
        let (applier, _thread) = Applier::spawn(catalog, options.fatal).unwrap();
        let log_options = log::Options { file_len_bytes: 1 << 16, ..log::Options::new(dir.path().join("log")) };
        let (log, recovery) = Log::open(log_options).unwrap();
        let store = LogStore::open(0, log, &recovery.mark, None).await.unwrap();
        let scratch = dir.path().to_owned();
        Ok((dir, store, StateMachine::new(applier, None, scratch)))
    }
}

#[tokio::test]
async fn openraft_accepts_the_store() {
    Suite::test_all(Builder).await.unwrap();
}
