use super::*;

fn read(text: &str) -> StoresConfig {
    #[derive(Deserialize)]
    struct File {
        stores: StoresConfig,
    }
    toml::from_str::<File>(text).unwrap().stores
}

const WORK: &str = r#"
    [stores.work]
    type = "s3"
    bucket = "fleet"
    root = "work"
    endpoint = "http://127.0.0.1:3900"
    region = "garage"
    access_key_id = { env = "KEY" }
    secret_access_key = { file = "/run/secrets/key" }
"#;

#[test]
fn roles_follow_from_what_a_store_is() {
    let config = read(&format!("{WORK}\n[stores.web]\ntype = \"http\"\npublic = true"));
    config.check(Some("work")).unwrap();
    assert_eq!(config.0["work"].roles("work", Some("work")), BTreeSet::from([Role::Work]));
    assert_eq!(config.0["work"].roles("work", None), BTreeSet::from([Role::Source, Role::Output]));
    assert_eq!(config.0["web"].roles("web", Some("work")), BTreeSet::from([Role::Source]));
}

#[test]
fn what_is_wrong_is_named_by_its_field() {
    let of = |text: &str| read(text).check(Some("work")).unwrap_err().path;
    let store = |text: &str| of(&format!("{WORK}\n[stores.x]\n{text}"));
    assert_eq!(of("[stores.other]\ntype = \"fs\"\nroot = \"/srv/media\""), "work.store");
    assert_eq!(store("type = \"s3\""), "stores.x.bucket");
    assert_eq!(store("type = \"s3\"\nbucket = \"b\""), "stores.x.region");
    assert_eq!(store("type = \"s3\"\nbucket = \"b\"\nregion = \"r\""), "stores.x.access_key_id");
    assert_eq!(store("type = \"gcs\"\nbucket = \"b\""), "stores.x.credential");
    assert_eq!(store("type = \"azblob\"\nbucket = \"b\"\naccount = \"a\""), "stores.x.account_key");
    assert_eq!(store("type = \"gcs\"\nbucket = \"b\"\nanonymous = true\nambient_credentials = true"), "stores.x.anonymous");
    let both = "type = \"gcs\"\nbucket = \"b\"\nambient_credentials = true\ncredential = { env = \"C\" }";
    assert_eq!(store(both), "stores.x.ambient_credentials");
    assert_eq!(store("type = \"fs\""), "stores.x.root");
    assert_eq!(store("type = \"fs\"\nroot = \"media\""), "stores.x.root");
    assert_eq!(store("type = \"fs\"\nroot = \"/srv/../etc\""), "stores.x.root");
    assert_eq!(store("type = \"fs\"\nroot = \"/srv\"\nbucket = \"b\""), "stores.x.bucket");
    for url in ["cdn.example.com", "ftp://cdn/", "https://", "https://u:p@cdn/", "https://cdn/?a=b", "https://cdn/a#b", "s3://b"]
    {
        assert_eq!(store(&format!("type = \"fs\"\nroot = \"/srv\"\npublic_url = \"{url}\"")), "stores.x.public_url", "{url}");
    }
    assert_eq!(store("type = \"http\"\npublic = true\npublic_url = \"https://cdn/\""), "stores.x.public_url");
    assert_eq!(
        store("type = \"fs\"\nroot = \"/srv\"\nroles = [\"source\"]\npublic_url = \"https://cdn/\""),
        "stores.x.public_url"
    );
    assert_eq!(store("type = \"fs\"\nroot = \"/srv\"\nconcurrency = 0"), "stores.x.concurrency");
    assert_eq!(store("type = \"fs\"\nroot = \"/srv\"\nroles = [\"work\", \"output\"]"), "stores.x.roles");
    assert_eq!(store("type = \"http\""), "stores.x.hosts");
    assert_eq!(store("type = \"http\"\nhosts = [\"http://a\"]"), "stores.x.hosts");
    assert_eq!(store("type = \"http\"\npublic = true\nroles = [\"output\"]"), "stores.x.roles");
    assert_eq!(store("type = \"http\"\npublic = true\nallow_networks = [\"10.0.0.0\"]"), "stores.x.allow_networks");
}

#[test]
fn nobody_else_reaches_the_work() {
    let other = |root: &str| {
        let copy = WORK.replace("stores.work", "stores.media").replace("\"work\"", root);
        read(&format!("{WORK}{copy}")).check(Some("work"))
    };
    for root in ["\"work\"", "\"\"", "\"work/jobs\"", "\"/work\"", "\"work/\""] {
        assert_eq!(other(root).unwrap_err().path, "stores.media.root", "{root}");
    }
    other("\"media\"").unwrap();
    other("\"workers\"").unwrap();
}

#[test]
fn an_address_is_the_same_however_it_is_written() {
    let azure = |name: &str, endpoint: &str| {
        format!(
            "[stores.{name}]\ntype = \"azblob\"\nbucket = \"b\"\naccount = \"a\"\naccount_key = {{ env = \"KEY\" }}\n\
             {endpoint}\n"
        )
    };
    for endpoint in ["", "endpoint = \"https://a.blob.core.windows.net/\"", "endpoint = \"https://A.blob.core.windows.net:443\""]
    {
        let config = read(&format!("{}{}", azure("work", ""), azure("media", endpoint)));
        assert_eq!(config.check(Some("work")).unwrap_err().path, "stores.media.root", "{endpoint}");
    }
    let elsewhere = azure("media", "endpoint = \"https://a.blob.core.chinacloudapi.cn\"");
    read(&format!("{}{elsewhere}", azure("work", ""))).check(Some("work")).unwrap();
}

#[test]
fn secrets_are_read_from_where_they_are_and_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, "hush\n").unwrap();
    let environment = |name: &str| (name == "KEY").then(|| "hush".to_string());
    for secret in [Secret::Env("KEY".into()), Secret::File(file)] {
        assert_eq!(secret.read("stores.x.access_key_id", &environment).unwrap(), "hush");
        assert!(!format!("{secret:?}").contains("hush"));
    }
    let error = Secret::Env("NONE".into()).read("stores.x.access_key_id", &environment).unwrap_err();
    assert_eq!(error.to_string(), "stores.x.access_key_id: the environment variable NONE is not set");
}
