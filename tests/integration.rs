//! One binary for all integration tests.

#[path = "integration/bench.rs"]
mod bench;
#[path = "integration/book.rs"]
mod book;
#[path = "integration/check.rs"]
mod check;
#[path = "integration/command.rs"]
mod command;
#[path = "integration/decode.rs"]
mod decode;
#[path = "integration/diff.rs"]
mod diff;
#[path = "integration/docs.rs"]
mod docs;
#[path = "integration/doctor.rs"]
mod doctor;
#[path = "integration/explain.rs"]
mod explain;
#[path = "integration/fmt.rs"]
mod fmt;
#[path = "integration/goldens.rs"]
mod goldens;
#[path = "integration/gradients.rs"]
mod gradients;
#[path = "integration/graph.rs"]
mod graph;
#[cfg(target_os = "linux")]
#[path = "integration/hostile.rs"]
mod hostile;
#[cfg(feature = "hub")]
#[path = "integration/hub.rs"]
mod hub;
#[path = "integration/inspect.rs"]
mod inspect;
#[path = "integration/json.rs"]
mod json;
#[path = "integration/lsp.rs"]
mod lsp;
#[path = "integration/machine.rs"]
mod machine;
#[path = "integration/permutations.rs"]
mod permutations;
#[path = "integration/plan.rs"]
mod plan;
#[path = "integration/quickstart.rs"]
mod quickstart;
#[path = "integration/recall.rs"]
mod recall;
#[path = "integration/repair.rs"]
mod repair;
#[path = "integration/report.rs"]
mod report;
#[path = "integration/run.rs"]
mod run;
#[path = "integration/search.rs"]
mod search;
#[path = "integration/shard.rs"]
mod shard;
#[path = "integration/store.rs"]
mod store;
#[path = "integration/support.rs"]
mod support;
#[path = "integration/synth.rs"]
mod synth;
#[path = "integration/trainings.rs"]
mod trainings;
#[path = "integration/trust.rs"]
mod trust;
#[path = "integration/vulkan.rs"]
mod vulkan;
