//! The same requests to Debian's etcd and to our store: the answers must be the same, revision by revision.
//!
//! ```text
//!                ┌─► etcd 3.4 (plain, temporary directory)
//!   script ──────┤                                          compare replies, errors, and the watch from revision 1
//!                └─► our store (TLS, admin-east)
//! ```
//! Skips, and says so, where the package etcd-server is not installed.

mod rig;

use std::fmt::Debug;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use etcd_client::proto::{PbResponseHeader, PbTxnOpResponse, PbTxnResponse};
use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, Error, EventType, GetOptions, PutOptions, SortOrder,
    SortTarget, Txn, TxnOp, WatchOptions,
};
use rig::{Rig, has};

struct Etcd {
    _child: Guard,
    client: Client,
    _dir: tempfile::TempDir,
}

/// Ends the process when the test ends.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

async fn etcd() -> Etcd {
    let dir = tempfile::tempdir().unwrap();
    let (client, peer) = (
        format!("http://127.0.0.1:{}", free_port()),
        format!("http://127.0.0.1:{}", free_port()),
    );
    let mut command = Command::new("etcd");
    command.arg("--data-dir").arg(dir.path()).args([
        "--listen-client-urls",
        &client,
        "--advertise-client-urls",
        &client,
    ]);
    command.args([
        "--listen-peer-urls",
        &peer,
        "--initial-advertise-peer-urls",
        &peer,
    ]);
    command.args(["--initial-cluster", &format!("default={peer}")]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // A proxy that the environment names must not come between.
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let child = Guard(command.spawn().unwrap());
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Ok(mut connection) = Client::connect([&client], None).await
            && connection.get("x", None).await.is_ok()
        {
            return Etcd {
                _child: child,
                client: connection,
                _dir: dir,
            };
        }
        assert!(Instant::now() < deadline, "etcd does not answer");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A small generator, so that a failure repeats.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn key(&mut self) -> String {
        format!("k{}", self.roll(12))
    }
}

/// One request with its parameters, so that both servers get the same.
#[derive(Clone, Debug)]
enum Ask {
    Put {
        key: String,
        value: String,
        lease: i64,
        prev: bool,
        ignore: u64,
    },
    Get {
        key: String,
        end: Option<String>,
        revision: i64,
        limit: i64,
        order: u64,
        target: u64,
        what: u64,
        low: i64,
    },
    Delete {
        key: String,
        end: Option<String>,
    },
    Txn {
        key: String,
        other: String,
        number: i64,
        op: u64,
        what: u64,
    },
    Grant {
        id: i64,
        ttl: i64,
    },
    Revoke {
        id: i64,
    },
    Left {
        id: i64,
    },
    Compact {
        revision: i64,
    },
}

fn ask(dice: &mut Dice, revision: i64) -> Ask {
    let back = |dice: &mut Dice| {
        if dice.roll(2) == 0 {
            0
        } else {
            (revision - dice.roll(30) as i64 + 2).max(0)
        }
    };
    match dice.roll(20) {
        0..=6 => Ask::Put {
            key: dice.key(),
            value: format!("v{}", dice.roll(5)),
            lease: if dice.roll(3) == 0 {
                100 + dice.roll(3) as i64
            } else {
                0
            },
            prev: dice.roll(2) == 0,
            ignore: dice.roll(6),
        },
        7..=11 => Ask::Get {
            key: if dice.roll(20) == 0 {
                String::new()
            } else {
                dice.key()
            },
            end: [None, Some("\0".to_owned()), Some(dice.key())][dice.roll(3) as usize].clone(),
            revision: back(dice),
            limit: dice.roll(5) as i64,
            order: dice.roll(3),
            target: dice.roll(5),
            what: dice.roll(4),
            low: if dice.roll(4) == 0 {
                revision - dice.roll(20) as i64
            } else {
                0
            },
        },
        12..=13 => Ask::Delete {
            key: dice.key(),
            end: (dice.roll(3) == 0).then(|| dice.key()),
        },
        14..=16 => Ask::Txn {
            key: dice.key(),
            other: dice.key(),
            number: if dice.roll(2) == 0 {
                dice.roll(3) as i64
            } else {
                revision - dice.roll(10) as i64
            },
            op: dice.roll(4),
            what: dice.roll(6),
        },
        17 => Ask::Grant {
            id: 100 + dice.roll(4) as i64,
            ttl: 500,
        },
        18 => match dice.roll(3) {
            0 => Ask::Revoke {
                id: 100 + dice.roll(4) as i64,
            },
            _ => Ask::Left {
                id: 100 + dice.roll(4) as i64,
            },
        },
        _ if dice.roll(3) == 0 => Ask::Compact {
            revision: revision - dice.roll(25) as i64 + 1,
        },
        _ => Ask::Left { id: 100 },
    }
}

/// Replies as text without what must differ: ids and the raft term.
fn told<T: Debug>(result: Result<T, Error>) -> String {
    match result {
        Ok(reply) => format!("{reply:?}"),
        Err(Error::GRpcStatus(status)) => format!("{:?}: {}", status.code(), status.message()),
        Err(other) => panic!("no answer: {other}"),
    }
}

fn plain(header: &mut Option<PbResponseHeader>) {
    let header = header.as_mut().expect("every reply has a header");
    assert!(header.cluster_id != 0 && header.member_id != 0 && header.raft_term != 0);
    *header = PbResponseHeader {
        revision: header.revision,
        ..Default::default()
    };
}

/// Headers inside a transaction: etcd fills in some, and nobody reads them.
fn strip(reply: &mut PbTxnResponse) {
    for response in &mut reply.responses {
        match response.response.as_mut() {
            Some(PbTxnOpResponse::ResponseRange(inner)) => inner.header = None,
            Some(PbTxnOpResponse::ResponsePut(inner)) => inner.header = None,
            Some(PbTxnOpResponse::ResponseDeleteRange(inner)) => inner.header = None,
            Some(PbTxnOpResponse::ResponseTxn(inner)) => {
                inner.header = None;
                strip(inner);
            }
            None => {}
        }
    }
}

async fn answer(client: &mut Client, ask: &Ask) -> String {
    match ask.clone() {
        Ask::Put {
            key,
            value,
            lease,
            prev,
            ignore,
        } => {
            let mut options = PutOptions::new().with_lease(lease);
            if prev {
                options = options.with_prev_key();
            }
            if ignore == 0 {
                options = options.with_ignore_value();
            }
            if ignore == 1 {
                options = options.with_ignore_lease();
            }
            // The value is left out sometimes, because ignoring one that is given is an error of its own.
            let value = if ignore == 0 && prev { String::new() } else { value };
            told(client.put(key, value, Some(options)).await.map(|mut reply| {
                plain(&mut reply.0.header);
                reply.0
            }))
        }
        Ask::Get {
            key,
            end,
            revision,
            limit,
            order,
            target,
            what,
            low,
        } => {
            let orders = [SortOrder::None, SortOrder::Ascend, SortOrder::Descend];
            let targets = [
                SortTarget::Key,
                SortTarget::Version,
                SortTarget::Create,
                SortTarget::Mod,
                SortTarget::Value,
            ];
            let mut options = GetOptions::new()
                .with_revision(revision)
                .with_limit(limit)
                .with_min_mod_revision(low);
            options = options.with_sort(targets[target as usize], orders[order as usize]);
            if let Some(end) = end {
                options = options.with_range(end);
            }
            options = match what {
                0 => options.with_keys_only(),
                1 => options.with_count_only(),
                _ => options,
            };
            told(client.get(key, Some(options)).await.map(|mut reply| {
                plain(&mut reply.0.header);
                reply.0
            }))
        }
        Ask::Delete { key, end } => {
            let mut options = DeleteOptions::new().with_prev_key();
            if let Some(end) = end {
                options = options.with_range(end);
            }
            told(client.delete(key, Some(options)).await.map(|mut reply| {
                plain(&mut reply.0.header);
                reply.0
            }))
        }
        Ask::Txn {
            key,
            other,
            number,
            op,
            what,
        } => {
            let op = [
                CompareOp::Equal,
                CompareOp::Greater,
                CompareOp::Less,
                CompareOp::NotEqual,
            ][op as usize];
            let compare = match what {
                0 => Compare::version(key.clone(), op, number),
                1 => Compare::create_revision(key.clone(), op, number),
                2 => Compare::mod_revision(key.clone(), op, number),
                3 => Compare::value(key.clone(), op, format!("v{number}")),
                4 => Compare::lease(key.clone(), op, number),
                _ => Compare::mod_revision("k", op, number).with_prefix(),
            };
            let put = || TxnOp::put(key.clone(), "txn", Some(PutOptions::new().with_prev_key()));
            let get = || TxnOp::get("k", Some(GetOptions::new().with_prefix()));
            let inner = Txn::new()
                .when([Compare::version(other.clone(), CompareOp::Greater, 1)])
                .and_then([TxnOp::delete(other.clone(), None), get()])
                .or_else([get()]);
            let txn = Txn::new()
                .when([compare])
                .and_then([put(), get(), TxnOp::txn(inner)])
                .or_else([
                    TxnOp::put(other.clone(), "else", None),
                    TxnOp::delete(key.clone(), None),
                    get(),
                ]);
            told(client.txn(txn).await.map(|mut reply| {
                plain(&mut reply.0.header);
                strip(&mut reply.0);
                reply.0
            }))
        }
        Ask::Grant { id, ttl } => {
            let options = etcd_client::LeaseGrantOptions::new().with_id(id);
            told(client.lease_grant(ttl, Some(options)).await.map(|mut reply| {
                plain(&mut reply.0.header);
                reply.0
            }))
        }
        Ask::Revoke { id } => told(client.lease_revoke(id).await.map(|mut reply| {
            plain(&mut reply.0.header);
            reply.0
        })),
        Ask::Left { id } => {
            let options = etcd_client::LeaseTimeToLiveOptions::new().with_keys();
            told(
                client
                    .lease_time_to_live(id, Some(options))
                    .await
                    .map(|mut reply| {
                        plain(&mut reply.0.header);
                        // Seconds pass between the two.
                        reply.0.ttl = reply.0.ttl.signum();
                        reply.0.keys.sort();
                        reply.0
                    }),
            )
        }
        Ask::Compact { revision } => told(client.compact(revision, None).await.map(|mut reply| {
            plain(&mut reply.0.header);
            reply.0
        })),
    }
}

/// All events from `from` to `to` as text, or the cancellation.
async fn replay(client: &mut Client, from: i64, to: i64) -> Vec<String> {
    let options = WatchOptions::new()
        .with_prefix()
        .with_start_revision(from)
        .with_prev_key();
    let mut stream = client.watch("k", Some(options)).await.unwrap();
    let mut seen = Vec::new();
    loop {
        let message = tokio::time::timeout(Duration::from_secs(10), stream.message());
        let response = message.await.expect("events in time").unwrap().unwrap();
        if response.canceled() {
            seen.push(format!("cancelled at {}", response.compact_revision()));
            return seen;
        }
        for event in response.events() {
            let kv = event.kv().unwrap();
            // A deletion of the last revision of the test may be the end, so the marker is a put.
            if kv.key() == b"k-end" && event.event_type() == EventType::Put && kv.mod_revision() == to {
                return seen;
            }
            seen.push(format!("{event:?}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_and_our_store_give_the_same_answers() {
    if !has("etcd", "etcd-server") {
        return;
    }
    let (mut theirs, rig) = (etcd().await, Rig::start().await);
    let mut ours = rig.client("admin-east").await;
    let mut dice = Dice(20_261_120);
    let (mut asked, mut failed) = (0, 0);
    let mut compacted = 1;
    for step in 0..600 {
        let ask = ask(&mut dice, rig.store.sizes().revision);
        let (a, b) = (
            answer(&mut theirs.client, &ask).await,
            answer(&mut ours, &ask).await,
        );
        assert_eq!(b, a, "step {step}: {ask:?} (left: ours, right: etcd)");
        asked += 1;
        failed += usize::from(a.contains("etcdserver: "));
        if let Ask::Compact { revision } = ask
            && !a.contains("etcdserver")
        {
            compacted = revision;
        }
    }
    for client in [&mut theirs.client, &mut ours] {
        client.put("k-end", "", None).await.unwrap();
    }
    let end = rig.store.sizes().revision;
    // From just behind the compaction, and from before it.
    for from in [compacted + 1, compacted - 1] {
        let (a, b) = (
            replay(&mut theirs.client, from, end).await,
            replay(&mut ours, from, end).await,
        );
        assert_eq!(b, a, "watch from {from} (left: ours, right: etcd)");
    }
    println!("{asked} requests, {failed} of them refused, the same in both; {end} revisions");
}
