//! Every decoder of a foreign value, and the key parser: no bytes may make them panic, and what they accept they must
//! write and read again as the same.
#![no_main]
use isthmus_kvstore::{ClusterConfig, Key, identity, ip, node, service, service_export, slice};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(key) = Key::parse(data) {
        assert_eq!(Key::parse(key.to_string().as_bytes()), Ok(key));
    }
    if let Ok(config) = ClusterConfig::decode(data) {
        assert_eq!(ClusterConfig::decode(&config.encode()), Ok(config));
    }
    if let Ok(labels) = identity::decode(data) {
        let _ = identity::encode(&labels);
    }
    if let Ok(value) = node::decode(data) {
        let _ = node::decode(&node::encode(&value)).expect("what we write we read");
    }
    if let Ok(value) = ip::decode(data) {
        assert_eq!(ip::decode(&ip::encode(&value)), Ok(value));
    }
    if let Ok(value) = service::decode(data) {
        assert_eq!(service::decode(&service::encode(&value)), Ok(value));
    }
    if let Ok(value) = service_export::decode(data) {
        let again = service_export::decode(&service_export::encode(&value.export, &value.cluster));
        assert_eq!(again, Ok(value));
    }
    if let Ok(value) = slice::decode(data) {
        let again = slice::decode(&slice::encode(&value.slice, &value.cluster, value.cluster_id));
        assert_eq!(again, Ok(value));
    }
});
