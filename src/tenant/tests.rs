use super::*;

/// `hex(sha256("a secret of acme's"))` is computed, not written down.
fn hash(secret: &str) -> String {
    hex::encode(Sha256::digest(secret))
}

fn settings(text: &str) -> BTreeMap<String, TenantSettings> {
    toml::from_str(text).unwrap()
}

fn rules(require_user_id: bool) -> SubmitRules {
    SubmitRules { require_user_id, trusted_users: BTreeSet::from(["narrows".to_string()]) }
}

fn two() -> BTreeMap<String, TenantSettings> {
    let text = format!(
        "[acme]\naccess_key_id = \"AK1\"\nsecret_sha256 = \"{}\"\namqp_users = [\"acme-in\"]\nstores = [\"media\"]\n\
         [beta]\naccess_key_id = \"AK2\"\nsecret_file = \"beta.key\"\nwebhook_secrets_env = [\"BETA_HOOK\"]\n",
        hash("a secret of acme's")
    );
    settings(&text)
}

fn read(place: KeyPlace<'_>) -> Result<Vec<u8>, String> {
    match place {
        KeyPlace::File("beta.key") => Ok(b"a secret of beta's\n".to_vec()),
        KeyPlace::Variable("BETA_HOOK") => Ok(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_vec()),
        other => Err(format!("{other:?} is not there")),
    }
}

#[test]
fn a_tenant_is_known_by_its_key_and_its_secret_together() {
    let tenants = Tenants::with_keys(&two(), rules(false), read).unwrap();
    let who = |id: &str, secret: &str| tenants.authenticate(id, secret.as_bytes()).map(|t| t.name.as_str());
    assert_eq!(who("AK1", "a secret of acme's"), Some("acme"));
    assert_eq!(who("AK2", "a secret of beta's"), Some("beta"), "without the line break of the file");
    for (id, secret) in [("AK1", "a secret of beta's"), ("AK2", "a secret of beta's\n"), ("AK3", ""), ("", ""), ("AK1", "")] {
        assert_eq!(who(id, secret), None, "{id} {secret}");
    }
    let keyless = Tenants::new(&two(), rules(false)).unwrap();
    assert!(keyless.authenticate("AK1", b"a secret of acme's").is_none(), "who has no keys lets nobody in");
    assert!(keyless.have_credentials() && !Tenants::new(&BTreeMap::new(), rules(false)).unwrap().have_credentials());
}

#[test]
fn nothing_that_is_printed_holds_a_key() {
    let tenants = Tenants::with_keys(&two(), rules(false), read).unwrap();
    let shown = format!("{tenants:?} {:?} {:?}", two(), Secret::new(b"a secret of beta's").unwrap());
    for part in ["secret of", "whsec_", &hash("a secret of acme's")[..12], "MfKQ"] {
        assert!(!shown.contains(part), "{part} in {shown}");
    }
    assert!(shown.contains("AK1"), "what is no secret is shown: {shown}");
    let short = Tenants::with_keys(&two(), rules(false), |_| Ok(b"hunter2".to_vec())).unwrap_err();
    assert_eq!(short.path, "tenants.beta.secret_file");
    assert!(short.reason.contains("7 bytes") && !short.reason.contains("hunter2"), "{short}");
}

#[test]
fn with_a_user_id_required_a_submission_is_its_users_and_no_other_tenants() {
    let tenants = Tenants::new(&two(), rules(true)).unwrap();
    let of = |named: Option<&str>, user: Option<&str>| tenants.of_submission(named, user);
    assert_eq!(of(None, Some("acme-in")), Ok("acme".into()));
    assert_eq!(of(Some("acme"), Some("acme-in")), Ok("acme".into()));
    let other = of(Some("beta"), Some("acme-in")).unwrap_err();
    assert_eq!(other.tenant.as_deref(), Some("acme"), "the one who asked is told");
    assert_eq!(of(Some("acme"), None).unwrap_err().tenant, None);
    assert_eq!(of(Some("acme"), Some("guest")).unwrap_err().tenant, None);
    assert_eq!(of(Some("beta"), Some("narrows")), Ok("beta".into()), "the fleet's own user speaks for all");
    assert!(of(None, Some("narrows")).is_err(), "but says for whom");
    assert!(of(Some("gamma"), Some("narrows")).is_err());
}

#[test]
fn without_it_a_submission_is_the_tenants_that_it_names() {
    let tenants = Tenants::new(&two(), rules(false)).unwrap();
    assert_eq!(tenants.of_submission(Some("beta"), None), Ok("beta".into()));
    assert_eq!(tenants.of_submission(None, Some("acme-in")), Ok("acme".into()));
    assert!(tenants.of_submission(Some("gamma"), None).unwrap_err().reason.contains("gamma"));
    assert!(tenants.of_submission(None, None).is_err());
    let none = Tenants::new(&BTreeMap::new(), SubmitRules::default()).unwrap();
    assert_eq!(none.of_submission(None, None), Ok(LOCAL.into()));
    assert!(none.of_submission(Some("acme"), None).is_err());
    assert_eq!(Tenants::open().of_submission(Some("acme"), None), Ok("acme".into()));
}

#[test]
fn a_quota_lets_jobs_start_then_wait_then_refuses_them() {
    let quota = Quota { active_jobs: Some(2), queued_jobs: Some(1), minutes_per_day: None };
    assert_eq!([0, 1, 2].map(|open| quota.admit(open)), [Admission::Start, Admission::Start, Admission::Wait]);
    assert!(matches!(quota.admit(3), Admission::Refuse(reason) if reason.contains("3 jobs")));
    assert_eq!(Quota { queued_jobs: None, ..quota }.admit(1000), Admission::Wait);
    assert_eq!(Quota::default().admit(u64::MAX), Admission::Start);
    assert!(Quota::default().is_unlimited() && !quota.is_unlimited());
}

#[test]
fn a_store_is_used_by_whom_it_is_kept_for_and_who_was_given_it() {
    let tenants = Tenants::new(&two(), rules(false)).unwrap();
    let may = |tenant: &str, store: &str, kept_for: Option<&[String]>| tenants.get(tenant).unwrap().may_use(store, kept_for);
    let acme = ["acme".to_string()];
    assert!(may("acme", "media", None) && !may("acme", "other", None));
    assert!(may("beta", "media", None) && may("beta", "other", None));
    assert!(may("acme", "media", Some(&acme)) && !may("beta", "media", Some(&acme)));
}

#[test]
fn a_wrong_tenant_is_named_by_its_field() {
    let path = |text: &str| Tenants::new(&settings(text), rules(false)).unwrap_err().path;
    let long = "0".repeat(64);
    assert_eq!(path("[\"a/b\"]\n"), "tenants.a/b");
    assert_eq!(path("[unknown]\n"), "tenants.unknown");
    assert_eq!(path("[a]\naccess_key_id = \"K\"\n"), "tenants.a.secret_sha256");
    assert_eq!(path("[a]\nsecret_file = \"k\"\n"), "tenants.a.access_key_id");
    assert_eq!(path("[a]\naccess_key_id = \"K\"\nsecret_sha256 = \"12\"\n"), "tenants.a.secret_sha256");
    let both = format!("[a]\naccess_key_id = \"K\"\nsecret_sha256 = \"{long}\"\nsecret_file = \"k\"\n");
    assert_eq!(path(&both), "tenants.a.secret_sha256");
    let same = format!(
        "[a]\naccess_key_id = \"K\"\nsecret_sha256 = \"{long}\"\n[b]\naccess_key_id = \"K\"\nsecret_sha256 = \"{long}\"\n"
    );
    assert_eq!(path(&same), "tenants.b.access_key_id");
    assert_eq!(path("[a]\namqp_users = [\"u\"]\n[b]\namqp_users = [\"u\"]\n"), "tenants.b.amqp_users");
    assert_eq!(path("[a]\namqp_users = [\"narrows\"]\n"), "tenants.a.amqp_users");
    assert_eq!(path("[a.quota]\nactive_jobs = 0\n"), "tenants.a.quota.active_jobs");
    assert_eq!(path("[[a.callbacks]]\nurl = \"x\"\n"), "tenants.a.callbacks[0].url");
    let missing = Tenants::with_keys(&two(), rules(false), |_| Err("is not there".into())).unwrap_err();
    assert_eq!(missing.path, "tenants.beta.secret_file");
}
