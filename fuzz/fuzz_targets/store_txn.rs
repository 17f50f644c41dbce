//! A transaction of foreign bytes against a store with a few keys: an answer or an error, and the revision moves by at most one.
#![no_main]

use etcd_client::proto::{PbPutRequest, PbTxnRequest};
use isthmus_store::mvcc::{Identity, Mvcc};
use prost::Message as _;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(request) = PbTxnRequest::decode(data) else { return };
    let mut store = Mvcc::new(Identity { cluster_id: 1, member_id: 1 });
    for key in ["a", "b", "c"] {
        let put = PbPutRequest { key: key.into(), value: b"v".into(), ..Default::default() };
        assert!(store.put(&put).is_ok());
    }
    let before = store.revision();
    let result = store.txn(&request);
    assert!(store.revision() - before <= i64::from(result.is_ok()));
});
