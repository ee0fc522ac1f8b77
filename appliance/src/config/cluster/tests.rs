#![allow(clippy::unwrap_used)]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use super::super::tests::{CLUSTER_TOML, Case};
use super::*;
use crate::cli::Form;
use crate::credentials;

const SECRET: &str = "6f1d9a4be07c4a6b92c5b3f08d7e215a\n";

/// A case of the distributed backend, with a secret file of its own.
fn case(toml: &str) -> Case {
    let case = Case::new().file("cluster.toml", toml).flag("storage.backend", "distributed");
    let path = case.path("secret");
    std::fs::write(&path, SECRET).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    case.flag("cluster.secret_file", &path.display().to_string())
}

fn cluster(case: &Case) -> Cluster {
    case.load().unwrap().cluster.unwrap()
}

fn db(id: u64, host: &str, port: u16) -> String {
    format!("[[db]]\nid = {id}\nhost = '{host}'\nport = {port}\npath = 'data/db/{id}'\n")
}

fn node(id: u64, host: &str, port: u16) -> String {
    format!("[[nodes]]\nid = {id}\nhost = '{host}'\nport = {port}\npath = 'data/node/{id}'\n")
}

const RS: &str = "[rs]\ndata = 2\nparity = 1\n";
const LOCAL: &str = "127.0.0.1";

fn three_dbs() -> String {
    (1..=3).map(|id| db(id, LOCAL, 6660 + id as u16)).collect()
}

fn three_nodes() -> String {
    (0..=2).map(|id| node(id, LOCAL, 9990 + id as u16)).collect()
}

fn three() -> String {
    RS.to_owned() + &three_dbs() + &three_nodes()
}

fn ids(own: &[Own]) -> Vec<u64> {
    own.iter().map(|own| own.id.0).collect()
}

/// Ids of the db nodes and of the shard nodes that a process with these flags is, and where it serves S3.
fn role(toml: &str, flags: &[(&str, &str)]) -> (Vec<u64>, Vec<u64>, Option<u16>) {
    let case = flags.iter().fold(case(toml), |case, (key, value)| case.flag(key, value));
    let role = cluster(&case).role;
    (ids(&role.dbs), ids(&role.nodes), role.gateway.map(|address| address.port()))
}

#[test]
fn the_file_of_the_issue_is_a_cluster_once_it_has_the_nodes_that_its_scheme_needs() {
    let more: String = (2..=5).map(|id| node(id, LOCAL, 9990 + id as u16)).collect();
    let case = case(&(CLUSTER_TOML.to_owned() + &more));
    let config = case.load().unwrap();
    assert_eq!(config.accounts[0].account_id, "123456789012");
    assert_eq!(config.accounts[0].policy.as_ref().unwrap()[0].bucket, "datastore");
    let cluster = config.cluster.unwrap();
    assert_eq!((cluster.scheme.data_count(), cluster.scheme.parity_count()), (3, 2));
    assert_eq!(cluster.dbs, [DbNode { id: NodeId(1), dial: "127.0.0.1:6660".into() }]);
    let first = ShardNode {
        id: NodeId(1),
        dial: "127.0.0.1:9991".into(),
        machine: "localhost".into(),
        zone: "rack-a".into(),
        capacity_bytes: Some(2_000_000_000_000),
    };
    assert_eq!(cluster.nodes[0], first);
    assert_eq!((cluster.nodes[1].zone.as_str(), cluster.nodes[1].capacity_bytes), ("", None));
    let own = |port, path: &str| Own { id: NodeId(1), listen: ([127, 0, 0, 1], port).into(), path: path.into() };
    assert_eq!(cluster.role.dbs, [own(6660, "data/db/node-1/")]);
    assert_eq!(cluster.role.nodes[0], own(9991, "data/nodes/node-1/"));
    assert_eq!(cluster.secret.derive("x"), Secret::new(SECRET.as_bytes()).unwrap().derive("x"));
}

#[test]
fn what_has_no_meaning_any_more_is_accepted_and_said_once() {
    let old = "raft_port = 7660\nleader = true\naccess_key_id = 'A'\nsecret_access_key = 'hidden'\n";
    let dbs: String = (1..=3).map(|id| db(id, LOCAL, 6660 + id as u16) + old).collect();
    let bucket = "[[buckets]]\nname = 'datastore'\ntype = 'distributed'\nencryption = ''\n";
    let config = case(&[RS, &dbs, &three_nodes(), bucket].concat()).load().unwrap();
    assert_eq!(config.obsolete.len(), 6, "{:?}", config.obsolete);
    for field in ["raft_port", "leader", "access_key_id", "secret_access_key"] {
        let named = |line: &&String| line.contains(&format!("`{field}` of [[db]] has no meaning"));
        assert_eq!(config.obsolete.iter().filter(named).count(), 1, "{field}");
    }
    assert!(!config.obsolete.concat().contains("hidden"));
    assert!(case(&three()).load().unwrap().obsolete.is_empty());
}

#[test]
fn without_a_node_a_process_is_the_whole_cluster_and_a_gateway() {
    assert_eq!(role(&three(), &[]), (vec![1, 2, 3], vec![0, 1, 2], Some(8443)));
    assert_eq!(role(&three(), &[("cluster.db_only", "false")]), (vec![1, 2, 3], vec![0, 1, 2], Some(8443)));
    assert_eq!(role(&three(), &[("server.port", "9000")]).2, Some(9000));
}

#[test]
fn a_process_is_the_nodes_that_it_is_told_to_be() {
    let (node, db, db_only) = ("cluster.node", "cluster.db_node", "cluster.db_only");
    assert_eq!(role(&three(), &[(node, "0"), (db, "1")]), (vec![1], vec![0], None));
    assert_eq!(role(&three(), &[(db_only, "true"), (db, "3")]), (vec![3], vec![], None));
    assert_eq!(role(&three(), &[(db, "3")]), (vec![3], vec![], None));
    assert_eq!(role(&three(), &[(node, "2")]), (vec![], vec![2], None));
    let one_db = RS.to_owned() + &self::db(4, LOCAL, 6660) + &three_nodes();
    assert_eq!(role(&one_db, &[(db_only, "true")]), (vec![4], vec![], None));
    let env = case(&three()).env("NODE", "1").env("DB_NODE", "2");
    let role = cluster(&env).role;
    assert_eq!((ids(&role.dbs), ids(&role.nodes)), (vec![2], vec![1]));
}

#[test]
fn with_a_port_set_anywhere_a_process_is_a_gateway_too() {
    let part = ("cluster.node", "2");
    assert_eq!(role(&three(), &[part, ("server.port", "8443")]).2, Some(8443));
    assert_eq!(role(&format!("{}[server]\nport = 9000\n", three()), &[part]).2, Some(9000));
    assert_eq!(role(&format!("{}[server]\nhost = '127.0.0.1'\n", three()), &[part]).2, None);
    let env = case(&three()).flag("cluster.node", "2").env("PORT", "9001");
    assert_eq!(env.load().unwrap().gateway().unwrap().port(), 9001);
    assert_eq!(case(&three()).flag("cluster.node", "2").load().unwrap().gateway(), None);
}

#[test]
fn without_db_nodes_there_is_one_beside_the_lowest_shard_node() {
    let text = RS.to_owned() + &(3..=5).rev().map(|id| node(id, LOCAL, 9990 + id as u16)).collect::<String>();
    let all = cluster(&case(&text));
    assert_eq!(all.dbs, [DbNode { id: NodeId(1), dial: "127.0.0.1:6660".into() }]);
    assert_eq!(all.nodes.iter().map(|node| node.id.0).collect::<Vec<_>>(), [3, 4, 5]);
    let own = Own { id: NodeId(1), listen: ([127, 0, 0, 1], 6660).into(), path: "data/node/3/db".into() };
    assert_eq!(all.role.dbs, [own]);
    assert_eq!(role(&text, &[("cluster.node", "3")]), (vec![1], vec![3], None));
    assert_eq!(role(&text, &[("cluster.node", "3"), ("cluster.db_node", "1")]), (vec![1], vec![3], None));
    assert_eq!(role(&text, &[("cluster.node", "4")]), (vec![], vec![4], None));
    let other = case(&text).flag("cluster.node", "4");
    assert_eq!(cluster(&other).dbs, all.dbs, "every process knows the db node");
    let refused: &[&[(&str, &str)]] = &[
        &[("cluster.db_only", "true")],
        &[("cluster.db_node", "1")],
        &[("cluster.node", "4"), ("cluster.db_node", "1")],
    ];
    for flags in refused {
        let case = flags.iter().fold(case(&text), |case, (key, value)| case.flag(key, value));
        assert!(case.error().contains("runs in the process of node 3"), "{}", case.error());
    }
}

#[test]
fn what_is_bound_and_what_is_dialled_may_differ() {
    let advertised =
        |id: u64, port: u16, host: &str| format!("{}advertise_host = '{host}'\n", node(id, "0.0.0.0", port));
    let text =
        [RS, &advertised(1, 9991, "box-one.lan"), &advertised(2, 9991, "10.0.0.2"), &advertised(3, 9991, "fd00::3")];
    let cluster = cluster(&case(&text.concat()).flag("cluster.node", "2"));
    let dials: Vec<&str> = cluster.nodes.iter().map(|node| node.dial.as_str()).collect();
    assert_eq!(dials, ["box-one.lan:9991", "10.0.0.2:9991", "[fd00::3]:9991"]);
    assert_eq!(cluster.dbs[0].dial, "box-one.lan:6660");
    assert_eq!(cluster.role.nodes[0].listen.to_string(), "0.0.0.0:9991");
    assert_eq!(cluster.role.host_names, BTreeSet::from(["10.0.0.2".to_owned()]));
}

#[test]
fn nodes_on_different_boxes_may_have_the_same_port_and_path() {
    let on =
        |id: u64, host: &str| format!("[[nodes]]\nid = {id}\nhost = '{host}'\nport = 9991\npath = '/srv/shards'\n");
    let text = [RS, &on(1, "10.0.0.1"), &on(2, "10.0.0.2"), &on(3, "10.0.0.3")].concat();
    assert_eq!(role(&text, &[("cluster.node", "2")]).1, [2]);
    // In one process they would be on one box.
    assert!(case(&text).error().contains("node 1 and node 2 are both kept in /srv/shards"));
}

#[test]
fn what_cannot_work_is_refused_with_the_reason() {
    let n = |id: u64, host: &str, port: u16| node(id, host, port);
    let with = |more: &str| three() + more;
    let moved = |from: &str, to: &str| three().replacen(from, to, 1);
    let cases = [
        (RS.to_owned() + &three_dbs(), "there are no [[nodes]]"),
        (RS.to_owned() + &three_dbs() + &n(1, LOCAL, 9991) + &n(2, LOCAL, 9992), "need 3 nodes, and [[nodes]] are 2"),
        (three_dbs() + &three_nodes(), "`rs.data` and `rs.parity` are needed"),
        (moved("parity = 1", ""), "`rs.data` and `rs.parity` are needed"),
        (moved("data = 2", "data = 0"), "[rs]: no layout has 0 data shards"),
        (moved("data = 2", "data = 32"), "[rs]: no layout has 32 data shards"),
        (moved("data = 2", "data = 300"), "`rs.data` `300` is not valid"),
        (with(&n(2, LOCAL, 9999)), "node 2 is there twice"),
        (with(&db(3, LOCAL, 9999)), "db 3 is there twice"),
        (moved("data/node/2", "data/./node/0/x/../"), "node 0 and node 2 are both kept in "),
        (moved("data/node/2", "data/db/1"), "db 1 and node 2 are both kept in "),
        (moved("9992", "9991"), "node 1 and node 2 are both at 127.0.0.1:9991"),
        (moved("6663", "6661"), "db 1 and db 3 are both at 127.0.0.1:6661"),
        (moved("9992", "6661"), "db 1 and node 2 are both at 127.0.0.1:6661"),
        (moved("9992", "8443"), "node 2 listens on port 8443 already, which `server.port` names"),
        (moved("6662", "8443"), "db 2 listens on port 8443 already, which `server.port` names"),
        (moved("6662", "8444"), "db 2 listens on port 8444 already, which `admin.port` names"),
        (with(&n(9, "0.0.0.0", 9999)), "node 9: nobody can dial `host` 0.0.0.0"),
        (with(&n(9, "::", 9999)), "node 9: nobody can dial `host` ::"),
        (with(&(n(9, LOCAL, 9999) + "advertise_host = '0.0.0.0'")), "node 9: nobody can dial `advertise_host` 0.0.0.0"),
        (with(&n(9, "224.0.0.1", 9999)), "nobody can dial `host` 224.0.0.1"),
        (with(&n(9, "10.0.0.256", 9999)), "node 9: `host` is `10.0.0.256`, neither an address nor"),
        (with(&n(9, "", 9999)), "node 9: `host` is ``, neither"),
        (with(&(n(9, LOCAL, 9999) + "advertise_host = '10.0.0.1:99'")), "`advertise_host` is `10.0.0.1:99`, neither"),
        (with(&n(9, LOCAL, 0)), "node 9: nobody can dial port 0"),
        (with(&n(9, "10.0.0.9", 9999)), "db 1 is dialled at 127.0.0.1:6661, which only its own host can, and node 9"),
        (with("[[nodes]]\nid = 9\nhost = '127.0.0.1'\nport = 99\npath = ''"), "node 9: `path` is empty"),
        (with("[[nodes]]\nid = 9\nhost = '127.0.0.1'\nport = 99"), "`nodes[3]` lacks `path`"),
        (with("[[nodes]]\nid = -9\nhost = '127.0.0.1'\nport = 99\npath = 'x'"), "`nodes[3].id` `-9` is not valid"),
        (with(&(n(9, LOCAL, 9999) + "capacity = '2 many'")), "`nodes[3].capacity` `2 many` is no size"),
        (with(&(n(9, LOCAL, 9999) + "capacity = 0")), "node 9: with a `capacity` of 0"),
        (with(&(db(9, LOCAL, 9999) + "zone = 'a'")), "unknown key `db[3].zone`"),
    ];
    for (text, expected) in cases {
        let error = case(&text).error();
        assert!(error.contains(expected), "{error}\n  lacks\n{expected}");
    }
}

#[test]
fn one_socket_must_not_be_in_the_way_of_another() {
    let text = three().replacen(
        "host = '127.0.0.1'\nport = 9992",
        "host = '0.0.0.0'\nadvertise_host = '127.0.0.2'\nport = 9991",
        1,
    );
    assert!(case(&text).error().contains("node 1 and node 2 are both at 127.0.0.2:9991"), "{}", case(&text).error());
    let text = three().replacen("host = '127.0.0.1'\nport = 9992", "host = '127.0.0.2'\nport = 9991", 1);
    assert!(case(&text).load().is_ok(), "two addresses of one machine");
}

#[test]
fn an_endpoint_is_compared_with_the_nodes_of_its_own_machine() {
    let text = [RS, &node(1, "10.0.0.1", 8443), &node(2, "10.0.0.2", 9991), &node(3, "10.0.0.3", 9991)].concat();
    let run = |id: &str| case(&text).flag("cluster.node", id).flag("server.port", "8443").load().map(|_| ());
    assert!(run("1").unwrap_err().to_string().contains("node 1 listens on port 8443 already"));
    run("2").unwrap();
    let elsewhere = case(&text).flag("cluster.node", "1").flag("server.port", "8443").flag("server.host", "10.0.0.7");
    assert!(elsewhere.load().is_ok(), "another address of the same box");
}

#[test]
fn a_node_that_is_not_there_cannot_be_run() {
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[("cluster.node", "7")], "-node 7: [[nodes]] has no such id, but 0, 1, 2"),
        (&[("cluster.db_node", "7")], "-db-node 7: [[db]] has no such id, but 1, 2, 3"),
        (&[("cluster.db_only", "true")], "-db needs -db-node"),
        (&[("cluster.db_only", "true"), ("cluster.db_node", "1"), ("cluster.node", "1")], "does not go with -node"),
    ];
    for (flags, expected) in cases {
        let error = flags.iter().fold(case(&three()), |case, (key, value)| case.flag(key, value)).error();
        assert!(error.contains(expected), "{error}\n  lacks\n{expected}");
    }
}

#[test]
fn a_secret_that_is_none_or_that_others_can_read_is_refused() {
    let secret = |content: &[u8], mode: u32| {
        let case = case(&three());
        let path = case.path("secret");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        case.load().map(|_| ())
    };
    secret(SECRET.as_bytes(), 0o400).unwrap();
    let error = secret(SECRET.as_bytes(), 0o644).unwrap_err().to_string();
    assert!(error.contains("/secret: its mode is 0644: others can read or change it"), "{error}");
    assert!(secret(SECRET.as_bytes(), 0o640).is_err() && secret(SECRET.as_bytes(), 0o620).is_err());
    let error = secret(b"short", 0o600).unwrap_err().to_string();
    assert!(error.contains("has 5 bytes; it needs at least 32"), "{error}");
    assert!(secret(&[b'x'; 64], 0o600).unwrap_err().to_string().contains("not random"));
    assert!(secret(&[7; 65 << 10], 0o600).unwrap_err().to_string().contains("longer than 64KiB"));

    let unset = Case::new().file("cluster.toml", &three()).flag("storage.backend", "distributed");
    assert!(unset.error().contains("`cluster.secret_file` is not set"), "{}", unset.error());
    let missing = case(&three()).flag("cluster.secret_file", "/nowhere/secret");
    assert!(missing.error().contains("/nowhere/secret: there is no such file"), "{}", missing.error());
    let directory = case(&three()).flag("cluster.secret_file", "/");
    assert!(directory.error().starts_with("`cluster.secret_file`: /: "), "{}", directory.error());
}

#[test]
fn all_processes_have_the_root_that_the_secret_gives_unless_one_is_set() {
    let root = |case: &Case| case.load().unwrap().root.unwrap();
    let (one, two) = (root(&case(&three())), root(&case(&three()).flag("cluster.node", "1")));
    assert_eq!((&one.access_key, &one.secret), (&two.access_key, &two.secret));
    let set = case(&three()).flag("auth.access_key", "ROOT").flag("auth.secret_key", "rootsecret");
    assert_eq!(root(&set).access_key, "ROOT");
    let config = case(&three()).load().unwrap();
    assert!(!format!("{config:?}").contains(one.secret.reveal()));
}

#[test]
fn credentials_are_printed_from_file_and_secret_alone() {
    let print = |case: Case| {
        let data_dir = case.path("never/made");
        let config = case.flag("storage.data_dir", &data_dir.display().to_string()).load().unwrap();
        let lines = credentials::print(&config, Form::Env).unwrap();
        assert!(lines.contains(&format!("AWS_ACCESS_KEY_ID='{}'", config.root.unwrap().access_key)), "{lines}");
        assert!(lines.contains("never/made/keys/cluster-ca.pem"), "{lines}");
        assert!(!data_dir.exists());
        lines
    };
    assert!(print(case(&three())).contains("AWS_ENDPOINT_URL='https://localhost:8443'"));
    let part = case(&three()).flag("cluster.node", "1");
    assert!(!print(part).contains("AWS_ENDPOINT_URL"), "it serves no S3");
}

#[test]
fn the_admin_address_may_be_taken_unless_it_was_set() {
    assert!(case(&three()).load().unwrap().admin_may_be_taken);
    assert!(!case(&three()).flag("admin.port", "8444").load().unwrap().admin_may_be_taken);
    assert!(!Case::new().load().unwrap().admin_may_be_taken, "one box");
}

#[test]
fn one_box_has_no_cluster() {
    let config = Case::new().file("cluster.toml", &three()).load().unwrap();
    assert!(config.cluster.is_none() && config.root.is_none());
    assert_eq!(config.gateway(), Some(config.server.address));
}
