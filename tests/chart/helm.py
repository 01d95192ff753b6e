"""Helm and Kubernetes' schemas for the tests of the chart: questions as JSON on stdin, answers as JSON on stdout.

    render    {"chart", "cases": [{"values"} or {"files"}]} -> [{"error", "notes", "objects"}]
    lint      the same                                      -> [{"errors"}]
    validate  {"objects", "versions"}                       -> ["version: kind/name: what is wrong"]
    custom    {"objects", "schemas"}                        -> ["kind/name: what is wrong"]
    package   {"chart", "folder"}                           -> the path of the archive
    values    {"chart"}                                     -> values.yaml
    readme    {"chart"}                                     -> the table of values that README.md is to have
    write-readme CHART                                      puts it there
"""

import copy
import functools
import json
import pathlib
import sys

import helm_python
import yaml

BEGIN, END = "<!-- values -->", "<!-- end of values -->"
# A default that is longer is looked up in values.yaml.
LONGEST_DEFAULT = 48


class OneValueEach(yaml.CSafeLoader):
    """YAML that refuses a key that is given twice: the later one would win silently."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: {sorted(twice)} given twice")
        return super().construct_mapping(node, deep)


def overlay(below, above):
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            overlay(below[key], value)
        else:
            below[key] = value
    return below


def values_of(case):
    values = {}
    for file in case.get("files", []):
        overlay(values, helm_python.values_from_yaml(pathlib.Path(file).read_text()))
    return overlay(values, copy.deepcopy(case.get("values", {})))


def objects_of(path, text):
    try:
        return [document for document in yaml.load_all(text, OneValueEach) if document]
    except yaml.YAMLError as error:
        raise SystemExit(f"{path}: is no YAML: {error}\n{text}") from error


def render(question):
    answers = []
    with helm_python.Chart.load(question["chart"]) as chart:
        for case in question["cases"]:
            try:
                texts = chart.render(values_of(case), name=case.get("release", "fleet"), namespace="media")
            except helm_python.HelmError as error:
                answers.append({"error": str(error), "notes": "", "objects": []})
                continue
            notes = "".join(text for path, text in texts.items() if path.endswith("NOTES.txt"))
            manifests = {path: text for path, text in texts.items() if path.endswith(".yaml")}
            objects = [document for path in sorted(manifests) for document in objects_of(path, manifests[path])]
            answers.append({"error": None, "notes": notes, "objects": objects})
    return answers


def lint(question):
    reports = [helm_python.lint(question["chart"], values_of(case), strict=True) for case in question["cases"]]
    # Severities from a warning up.
    return [{"errors": report["errors"] + [m["error"] for m in report["messages"] if m["severity"] >= 2]} for report in reports]


def name_of(thing):
    return f"{thing['kind']}/{thing['metadata']['name']}"


def validate(question):
    import kubernetes_validate
    import kubernetes_validate.utils

    # The schemas are hundreds of files: each is read once.
    kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)
    findings = []
    for version in question["versions"]:
        for thing in question["objects"]:
            try:
                judged_by = kubernetes_validate.validate(thing, version, strict=True)
                if judged_by != version:
                    findings.append(f"{version}: judged by the schemas of {judged_by}")
            except kubernetes_validate.ValidationError as error:
                findings.append(f"{version}: {name_of(thing)}: {'.'.join(map(str, error.path))}: {error.message}")
            except kubernetes_validate.SchemaNotFoundError as error:
                findings.append(f"{version}: {name_of(thing)}: {error.message}")
    return findings


def custom(question):
    import jsonschema

    schemas = {}
    for file in sorted(pathlib.Path(question["schemas"]).glob("*.json")):
        schema = json.loads(file.read_text())
        jsonschema.Draft202012Validator.check_schema(schema)
        schemas[(schema["properties"]["apiVersion"]["const"], schema["properties"]["kind"]["const"])] = schema
    findings = []
    for thing in question["objects"]:
        schema = schemas.get((thing["apiVersion"], thing["kind"]))
        if schema is None:
            findings.append(f"{name_of(thing)}: no schema of {thing['apiVersion']} {thing['kind']} is kept")
            continue
        for error in jsonschema.Draft202012Validator(schema).iter_errors(thing):
            findings.append(f"{name_of(thing)}: {'.'.join(map(str, error.path))}: {error.message}")
    return findings


def documented(text):
    """The values that a `# --` comment stands above, as (path, meaning), in the order of the file."""
    path, meaning = [], None
    for line in text.splitlines():
        bare = line.strip()
        if bare.startswith("# -- "):
            meaning = bare[5:]
        elif bare.startswith("#") and meaning is not None:
            meaning += " " + bare[1:].strip()
        elif bare and not bare.startswith(("#", "-")) and ":" in bare:
            depth = (len(line) - len(line.lstrip())) // 2
            path = path[:depth] + [bare.split(":")[0]]
            if meaning is not None:
                yield tuple(path), meaning
            meaning = None
        else:
            meaning = None


def without_words(values, known, path=()):
    """Values that no comment stands above, or above what they lie in."""
    for key, value in values.items():
        here = (*path, key)
        if here in known:
            continue
        if isinstance(value, dict) and value:
            yield from without_words(value, known, here)
        else:
            yield ".".join(here)


def readme(question):
    text = (pathlib.Path(question["chart"]) / "values.yaml").read_text()
    values, known = yaml.load(text, OneValueEach), dict(documented(text))
    missing = list(without_words(values, known))
    if missing:
        raise SystemExit(f"values.yaml: no '# --' comment above {', '.join(missing)}")
    rows = ["| value | default | what it means |", "| --- | --- | --- |"]
    for path, meaning in known.items():
        default = json.dumps(functools.reduce(lambda tree, key: tree[key], path, values), ensure_ascii=False)
        shown = f"`{default}`" if len(default) <= LONGEST_DEFAULT else "see values.yaml"
        rows.append("| `{}` | {} | {} |".format(".".join(path), shown, meaning.replace("|", "\\|")))
    return "\n".join(rows)


def values(question):
    with helm_python.Chart.load(question["chart"]) as chart:
        return chart.values


def package(question):
    return helm_python.package(question["chart"], destination=question["folder"])


def write_readme(chart):
    page = pathlib.Path(chart) / "README.md"
    before, rest = page.read_text().split(BEGIN)
    after = rest.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n{readme({'chart': chart})}\n{END}{after}")


if __name__ == "__main__":
    if sys.argv[1] == "write-readme":
        write_readme(sys.argv[2])
    else:
        questions = [render, lint, validate, custom, package, values, readme]
        ask = {question.__name__: question for question in questions}[sys.argv[1]]
        json.dump(ask(json.load(sys.stdin)), sys.stdout)
