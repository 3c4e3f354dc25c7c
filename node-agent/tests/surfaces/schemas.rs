//! The committed schemas are those of the types. `UPDATE_EXPECT=1` writes them anew; a change other than an added
//! field breaks a promise to programs.

use expect_test::{ExpectFile, expect_file};
use node_agent::api::reply::{
    BlockEntry, ClaimRequest, Claimed, DeleteRequest, Deleted, ErrorReply, ReleaseRequest, Released,
    Uninstalled, Validated, Version,
};
use node_agent::doctor::Examination;
use node_agent::status::{BgpNeighbor, Pair, RouteEntry, Status};
use schemars::{JsonSchema, schema_for};
use serde::de::DeserializeOwned;

fn committed<T: JsonSchema>(file: ExpectFile) {
    let schema = serde_json::to_string_pretty(&schema_for!(T)).expect("a schema is JSON");
    file.assert_eq(&(schema + "\n"));
}

#[test]
fn every_schema_is_committed() {
    committed::<Status>(expect_file!["../../schemas/status.json"]);
    committed::<Vec<Pair>>(expect_file!["../../schemas/pairs.json"]);
    committed::<Vec<RouteEntry>>(expect_file!["../../schemas/routes.json"]);
    committed::<Vec<BgpNeighbor>>(expect_file!["../../schemas/bgp-neighbors.json"]);
    committed::<Vec<BlockEntry>>(expect_file!["../../schemas/blocks-list.json"]);
    committed::<ClaimRequest>(expect_file!["../../schemas/blocks-claim-request.json"]);
    committed::<Claimed>(expect_file!["../../schemas/blocks-claim.json"]);
    committed::<ReleaseRequest>(expect_file!["../../schemas/blocks-release-request.json"]);
    committed::<Released>(expect_file!["../../schemas/blocks-release.json"]);
    committed::<DeleteRequest>(expect_file!["../../schemas/node-delete-request.json"]);
    committed::<Deleted>(expect_file!["../../schemas/node-delete.json"]);
    committed::<Uninstalled>(expect_file!["../../schemas/uninstall.json"]);
    committed::<Validated>(expect_file!["../../schemas/validate.json"]);
    committed::<Version>(expect_file!["../../schemas/version.json"]);
    committed::<Examination>(expect_file!["../../schemas/doctor.json"]);
    committed::<ErrorReply>(expect_file!["../../schemas/error.json"]);
}

/// What an older program reads of a newer agent.
#[test]
fn fields_that_are_added_do_not_harm_readers() {
    fn reads<T: DeserializeOwned>(golden: &str) {
        let mut value: serde_json::Value = serde_json::from_str(golden).expect("JSON");
        let entry = if value.is_array() { &mut value[0] } else { &mut value };
        entry["addedLater"] = true.into();
        serde_json::from_value::<T>(value).expect("an unknown field is skipped");
    }
    reads::<Status>(include_str!("golden/status.json"));
    reads::<Vec<Pair>>(include_str!("golden/pairs.json"));
    reads::<Vec<RouteEntry>>(include_str!("golden/routes.json"));
    reads::<Vec<BgpNeighbor>>(include_str!("golden/bgp-neighbors.json"));
    reads::<Vec<BlockEntry>>(include_str!("golden/blocks-list.json"));
    reads::<Released>(include_str!("golden/blocks-release.json"));
    reads::<ErrorReply>(include_str!("golden/error.json"));
}
