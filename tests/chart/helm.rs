//! Asks Helm, and finds things in what it renders.

use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The chart.
pub fn chart() -> PathBuf {
    root().join("helm/narrows")
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The value sets that are kept beside the chart, by name.
pub fn sets() -> Vec<PathBuf> {
    let mut sets: Vec<PathBuf> = std::fs::read_dir(chart().join("ci")).unwrap().map(|entry| entry.unwrap().path()).collect();
    sets.sort();
    assert!(sets.len() >= 5, "{sets:?}");
    sets
}

/// One of them.
pub fn set(name: &str) -> PathBuf {
    let path = chart().join("ci").join(format!("{name}.yaml"));
    assert!(path.exists(), "{}", path.display());
    path
}

/// Puts a question to `helm.py`.
pub fn ask(command: &str, question: &Value) -> Value {
    let python = root().join("target/chart/bin/python");
    assert!(python.exists(), "Helm is not there; make setup installs it into target/chart");
    let mut driver = Command::new(python)
        .arg(root().join("tests/chart/helm.py"))
        .arg(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Small enough not to fill the pipe of an answer before it is read: the driver reads all of it first.
    driver.stdin.take().unwrap().write_all(question.to_string().as_bytes()).unwrap();
    let answer = driver.wait_with_output().unwrap();
    assert!(answer.status.success(), "helm.py {command}: {}", answer.status);
    serde_json::from_slice(&answer.stdout).unwrap()
}

/// What Helm made of one case.
pub struct Rendered {
    pub error: Option<String>,
    pub notes: String,
    pub objects: Vec<Value>,
}

/// Renders the chart once for each case: `{"files": [...], "values": {...}}`.
pub fn render(cases: Vec<Value>) -> Vec<Rendered> {
    render_chart(&chart(), cases)
}

pub fn render_chart(chart: &Path, cases: Vec<Value>) -> Vec<Rendered> {
    let count = cases.len();
    let Value::Array(answers) = ask("render", &json!({ "chart": chart, "cases": cases })) else { panic!("no list") };
    assert_eq!(answers.len(), count);
    let rendered = |answer: &Value| Rendered {
        error: answer["error"].as_str().map(str::to_string),
        notes: answer["notes"].as_str().unwrap().into(),
        objects: answer["objects"].as_array().unwrap().clone(),
    };
    answers.iter().map(rendered).collect()
}

/// The kept sets, rendered; every one can be.
pub fn all() -> Vec<(String, Rendered)> {
    let sets = sets();
    let names = sets.iter().map(|set| set.file_stem().unwrap().to_str().unwrap().to_string());
    let rendered = render(sets.iter().map(|set| json!({ "files": [set] })).collect());
    let all: Vec<(String, Rendered)> = names.zip(rendered).collect();
    for (name, rendered) in &all {
        assert_eq!(rendered.error, None, "{name}");
    }
    all
}

/// The smallest set, with these values over it.
pub fn with(values: &Value) -> Rendered {
    let mut rendered = render(vec![over_minimal(values)]);
    let one = rendered.remove(0);
    assert_eq!(one.error, None, "{values}");
    one
}

/// A case: the smallest set, with these values over it.
pub fn over_minimal(values: &Value) -> Value {
    json!({ "files": [set("minimal")], "values": values })
}

impl Rendered {
    pub fn kind<'a>(&'a self, kind: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
        let kind = kind.to_string();
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }

    #[track_caller]
    pub fn object(&self, kind: &str, name: &str) -> &Value {
        let found = self.kind(kind).find(|object| name_of(object) == name);
        found.unwrap_or_else(|| panic!("no {kind} {name} in {:?}", self.names()))
    }

    pub fn names(&self) -> Vec<String> {
        self.objects.iter().map(|object| format!("{}/{}", object["kind"].as_str().unwrap(), name_of(object))).collect()
    }

    /// Every pod's spec and labels, by the name of what it comes from.
    pub fn pods(&self) -> Vec<Pod<'_>> {
        let made = self.kind("Deployment").map(|made| Pod::new(made, &made["spec"]["template"]));
        made.chain(self.kind("Pod").map(|pod| Pod::new(pod, pod))).collect()
    }

    /// The pods of workers and coordinators.
    pub fn roles(&self) -> Vec<Pod<'_>> {
        self.pods().into_iter().filter(|pod| pod.owner["kind"] == "Deployment").collect()
    }
}

/// A pod that there would be.
pub struct Pod<'a> {
    pub name: &'a str,
    /// Deployment, or the pod itself.
    pub owner: &'a Value,
    pub labels: &'a Value,
    pub spec: &'a Value,
}

impl<'a> Pod<'a> {
    fn new(owner: &'a Value, template: &'a Value) -> Self {
        Self { name: name_of(owner), owner, labels: &template["metadata"]["labels"], spec: &template["spec"] }
    }

    pub fn container(&self) -> &'a Value {
        let containers = self.spec["containers"].as_array().unwrap();
        assert_eq!(containers.len(), 1, "{}", self.name);
        &containers[0]
    }

    /// worker or coordinator.
    pub fn role(&self) -> &'a str {
        self.labels["app.kubernetes.io/component"].as_str().unwrap()
    }

    pub fn is_selected_by(&self, labels: &Value) -> bool {
        labels.as_object().unwrap().iter().all(|(key, value)| self.labels.get(key) == Some(value))
    }
}

pub fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}
