//! A cluster of two agents, whole and with things broken.
use isthmus_admin::agent::{ClusterView, ControlView, DataView, WritesView};

use super::*;
use crate::output::Format;
use crate::views::source::Source;

fn agent(node: &str, ready: bool, eligible: bool) -> Answer<AgentStatus> {
    let west = ClusterView {
        name: "west".into(),
        id: 2,
        eligible,
        reason: if eligible {
            String::new()
        } else {
            "no probe is answered".into()
        },
        control: ControlView {
            ready: true,
            connected: true,
            status: "synced".into(),
            endpoint: String::new(),
            failures: 0,
            rejected: 0,
            nodes: 2,
            services: 1,
            endpoints: 4,
            identities: 2,
        },
        data: DataView {
            state: "alive".into(),
            probes: Vec::new(),
        },
    };
    let view = AgentStatus {
        cluster: "east".into(),
        cluster_id: 1,
        node: node.into(),
        version: "0.1.0".into(),
        started_at: String::new(),
        ready,
        waiting_for: Vec::new(),
        clusters: vec![west],
        features: Vec::new(),
        problems: Vec::new(),
        writes: WritesView::default(),
    };
    Answer {
        source: Source::for_test("east", node),
        view: Ok(view),
    }
}

fn gathered(agents: Vec<Answer<AgentStatus>>) -> Gathered {
    Gathered {
        apiservers: Vec::new(),
        agents,
        services: Vec::new(),
        speakers: Vec::new(),
    }
}

fn row_of(agents: Vec<Answer<AgentStatus>>) -> Outcome<(Exit, String)> {
    let list = list(&gathered(agents), Timestamp::UNIX_EPOCH);
    let table = list.text(Format::Wide)?;
    Ok((list.exit(), table.lines().skip(1).collect::<Vec<_>>().join("\n")))
}

#[test]
fn state_and_exit_code_follow_the_agents() -> Outcome {
    let silent = || Answer {
        source: Source::for_test("east", "east-2"),
        view: Err("no daemon answers".into()),
    };
    let (exit, row) = row_of(vec![agent("east-1", true, true), agent("east-2", true, true)])?;
    assert_eq!(
        (exit, row.split_whitespace().collect::<Vec<_>>()[2]),
        (Exit::Ok, "ok"),
        "{row}"
    );
    assert!(row.contains("2/2") && row.contains("west 2/2"), "{row}");

    let (exit, row) = row_of(vec![agent("east-1", true, true), agent("east-2", true, false)])?;
    assert_eq!(exit, Exit::Degraded);
    assert!(
        row.contains("west 1/2") && row.ends_with("! east: east-2 → west: no probe is answered"),
        "{row}"
    );

    let (exit, row) = row_of(vec![agent("east-1", true, true), silent()])?;
    assert_eq!(exit, Exit::Degraded);
    assert!(row.contains("1/2"), "{row}");

    let (exit, row) = row_of(vec![agent("east-1", false, true), silent()])?;
    assert_eq!(exit, Exit::Down);
    assert!(row.contains("down"), "{row}");
    Ok(())
}
