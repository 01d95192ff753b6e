//! The Helm chart: rendered by the real Helm, judged by Kubernetes' own schemas, compared with the program.
//!
//! Helm is a library of PyPI's helm-python-sdk, the schemas are kubernetes-validate's; `make setup` installs both.

mod agreement;
mod helm;
mod image;
mod matrix;
mod pages;
mod pods;
mod refusals;
mod schema;
mod settings;
#[path = "../common/source.rs"]
mod source;
