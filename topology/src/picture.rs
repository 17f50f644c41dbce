//! The mesh as a picture in a terminal: clusters above each other, their links between them, the routers beside them.

/// A node in the picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PictureNode {
    /// Its name.
    pub name: String,
    /// What stands behind the name, e.g. its pod CIDR.
    pub detail: String,
    /// Whether it answers.
    pub up: bool,
    /// Its BGP session's state, if it has one.
    pub session: Option<String>,
}

/// A cluster in the picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PictureCluster {
    /// The first line, e.g. `east (id 1)`.
    pub title: String,
    /// Its nodes.
    pub nodes: Vec<PictureNode>,
}

/// A link between one cluster and the next in the picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PictureLink {
    /// What it is, e.g. `vxlan  0.4 ms`.
    pub label: String,
    /// Whether traffic crosses it.
    pub up: bool,
}

/// All that is drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Clusters from top to bottom.
    pub clusters: Vec<PictureCluster>,
    /// `links[i]` joins `clusters[i]` and `clusters[i + 1]`; none where they are not meshed.
    pub links: Vec<Option<PictureLink>>,
    /// The router on the right, if there is one, e.g. `tor AS 65000 ── client`.
    pub router: Option<String>,
}

/// Draws it, one line for each row, without trailing spaces. The same input always gives the same text.
pub fn draw(picture: &Picture) -> String {
    let width = inner_width(picture);
    let mut rows = Vec::new();
    for (index, cluster) in picture.clusters.iter().enumerate() {
        rows.extend(cluster_rows(cluster, width));
        if index + 1 < picture.clusters.len() {
            rows.extend(link_rows(picture.links.get(index).and_then(Option::as_ref)));
        }
    }
    join_router(&rows, picture.router.as_deref(), width + 2)
}

/// One row: its text within the boxes, and the session that leaves it to the right.
struct Row {
    text: String,
    session: Option<String>,
}

fn inner_width(picture: &Picture) -> usize {
    let titles = picture.clusters.iter().map(|c| c.title.chars().count() + 4);
    let nodes = picture
        .clusters
        .iter()
        .flat_map(|c| &c.nodes)
        .map(|n| node_text(n).chars().count() + 2);
    titles.chain(nodes).max().unwrap_or(0).max(20)
}

fn node_text(node: &PictureNode) -> String {
    let state = if node.up { "●" } else { "✗" };
    format!("{state} {}  {}", node.name, node.detail)
}

fn cluster_rows(cluster: &PictureCluster, width: usize) -> Vec<Row> {
    let title_fill = width.saturating_sub(cluster.title.chars().count() + 3);
    let mut rows = vec![Row {
        text: format!("┌─ {} {}┐", cluster.title, "─".repeat(title_fill)),
        session: None,
    }];
    for node in &cluster.nodes {
        let text = node_text(node);
        let fill = width.saturating_sub(text.chars().count() + 1);
        rows.push(Row {
            text: format!("│ {text}{}│", " ".repeat(fill)),
            session: node.session.clone(),
        });
    }
    rows.push(Row {
        text: format!("└{}┘", "─".repeat(width)),
        session: None,
    });
    rows
}

fn link_rows(link: Option<&PictureLink>) -> Vec<Row> {
    let line = match link {
        Some(PictureLink { label, up: true }) => format!("     ║  {label}"),
        Some(PictureLink { label, up: false }) => format!("     ✗  {label}"),
        None => "     ·  not meshed".to_owned(),
    };
    vec![Row {
        text: line,
        session: None,
    }]
}

/// Draws the sessions as branches of one stem that ends at the router.
fn join_router(rows: &[Row], router: Option<&str>, width: usize) -> String {
    let sessions: Vec<usize> = (0..rows.len()).filter(|i| rows[*i].session.is_some()).collect();
    let branch = rows
        .iter()
        .filter_map(|r| r.session.as_ref())
        .map(|s| s.chars().count())
        .max()
        .unwrap_or(0)
        + 4;
    let (Some(first), Some(last), Some(router)) = (sessions.first(), sessions.last(), router) else {
        return rows
            .iter()
            .map(|row| format!("{}\n", row.text.trim_end()))
            .collect();
    };
    let middle = usize::midpoint(*first, *last);
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let fill = " ".repeat(width.saturating_sub(row.text.chars().count()));
        let stem = match (index == *first, index == *last) {
            (true, true) => "─",
            (true, false) => "┐",
            (false, true) => "┘",
            _ if index > *first && index < *last => "│",
            _ => "",
        };
        let stem = if row.session.is_some() && stem == "│" {
            "┤"
        } else {
            stem
        };
        let arm = row.session.as_ref().map_or_else(
            || " ".repeat(if stem.is_empty() { 0 } else { branch }),
            |s| {
                format!(
                    "── {s} {}",
                    "─".repeat(branch.saturating_sub(s.chars().count() + 4))
                )
            },
        );
        let end = if index == middle {
            branch_end(stem, router)
        } else {
            stem.to_owned()
        };
        text.push_str(format!("{}{fill}{arm}{end}", row.text).trim_end());
        text.push('\n');
    }
    text
}

fn branch_end(stem: &str, router: &str) -> String {
    let joint = match stem {
        "│" => "├",
        "┤" => "┼",
        "┐" => "┬",
        "┘" => "┴",
        other => other,
    };
    format!("{joint}── {router}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, cidr: &str, up: bool) -> PictureNode {
        PictureNode {
            name: name.into(),
            detail: cidr.into(),
            up,
            session: Some("Established".into()),
        }
    }

    #[test]
    fn two_clusters_at_one_router() {
        let picture = Picture {
            clusters: vec![
                PictureCluster {
                    title: "east (id 1)".into(),
                    nodes: vec![
                        node("east-1", "10.1.1.0/24", true),
                        node("east-2", "10.1.2.0/24", true),
                    ],
                },
                PictureCluster {
                    title: "west (id 2)".into(),
                    nodes: vec![node("west-1", "10.2.1.0/24", false)],
                },
            ],
            links: vec![Some(PictureLink {
                label: "vxlan  0.4 ms".into(),
                up: true,
            })],
            router: Some("tor AS 65000 ── client".into()),
        };
        let expected = "\
┌─ east (id 1) ─────────┐
│ ● east-1  10.1.1.0/24 │── Established ┐
│ ● east-2  10.1.2.0/24 │── Established ┤
└───────────────────────┘               ├── tor AS 65000 ── client
     ║  vxlan  0.4 ms                   │
┌─ west (id 2) ─────────┐               │
│ ✗ west-1  10.2.1.0/24 │── Established ┘
└───────────────────────┘
";
        assert_eq!(draw(&picture), expected);
    }
}
