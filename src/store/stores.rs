//! The stores a process may use. A job's URIs resolve to these, by scheme and bucket, and to nothing else.

use super::cache::BlockCache;
use super::config::{Environment, Role, StoreConfig, StoreKind};
use super::open::{Opening, prepare};
use super::source::{LocalFile, Origin, RangedSource, SourceIdentity};
use super::uri::{self, Target};
use super::web::Web;
use super::{SettingError, Store, StoreError, StoresConfig};
use crate::observe::{self, Observer};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use url::Url;

/// The stores a process may use. Clones are the same stores.
#[derive(Clone)]
pub struct Stores {
    work: Store,
    /// The folder and the file of a job of this process alone.
    outputs: Arc<BTreeMap<String, Store>>,
    sources: Arc<BTreeMap<String, PathBuf>>,
    named: Arc<Vec<Named>>,
    /// Tenants that may name certain stores only.
    bound: Arc<BTreeMap<String, BTreeSet<String>>>,
    cache: Arc<BlockCache>,
    observer: Arc<dyn Observer>,
}

/// A store of the configuration.
pub(super) struct Named {
    pub name: String,
    pub roles: BTreeSet<Role>,
    tenants: Option<BTreeSet<String>>,
    /// Where everybody reads what lies in it, with a slash at its end.
    public_place: Option<String>,
    pub place: Place,
}

/// What a store of the configuration is, and which URIs it answers to.
pub(super) enum Place {
    Bucket { kind: StoreKind, bucket: String, root: String, store: Store },
    Folder { root: PathBuf, store: Store },
    Web(Web),
}

/// A job's source that some store answers for.
pub struct SourceRef {
    name: String,
    place: SourcePlace,
    cache: Arc<BlockCache>,
    observer: Arc<dyn Observer>,
}

enum SourcePlace {
    /// The path was given on the command line.
    File(PathBuf),
    /// A path under a folder of the configuration.
    Below {
        root: PathBuf,
        path: String,
    },
    Object {
        store: Store,
        path: String,
    },
    Web {
        web: Web,
        url: Url,
    },
}

impl Named {
    fn open(opening: &Opening<'_>, work: &str) -> Result<Self, SettingError> {
        let Opening { name, config, .. } = *opening;
        let roles = config.roles(name, Some(work));
        let place = match config.kind {
            StoreKind::Http => Place::Web(opening.web()?),
            StoreKind::Fs => {
                let root = PathBuf::from(config.root.clone().unwrap_or_default());
                let reads = roles == BTreeSet::from([Role::Source]);
                let store = if reads { opening.read_only_folder()? } else { opening.folder()? };
                Place::Folder { root, store }
            }
            kind => {
                let bucket = config.bucket.clone().unwrap_or_default();
                let root = config.root.as_deref().unwrap_or_default().trim_matches('/').to_string();
                Place::Bucket { kind, bucket, root, store: opening.bucket()? }
            }
        };
        let tenants = config.tenants.as_ref().map(|tenants| tenants.iter().cloned().collect());
        let public_place = config.public_url.as_deref().and_then(uri::public_place);
        Ok(Self { name: name.into(), roles, tenants, public_place, place })
    }

    /// Where `target` lies in this store; none when it is not the one that answers. Longer roots come first.
    fn below(&self, target: &Target) -> Option<(usize, String)> {
        match (&self.place, target) {
            (Place::Bucket { kind, bucket, root, .. }, Target::Bucket { kind: asked, bucket: of, path }) => {
                let path = (kind == asked && bucket == of).then(|| uri::below(path, root))??;
                Some((root.len(), path.to_string()))
            }
            (Place::Folder { root, .. }, Target::File(path)) => {
                let below = Path::new(path).strip_prefix(root).ok()?;
                Some((root.as_os_str().len(), below.to_str()?.to_string()))
            }
            (Place::Web(web), Target::Web(url)) => web.admits(url).ok().map(|()| (0, String::new())),
            _ => None,
        }
    }
}

impl Stores {
    /// Only a work store.
    pub fn new(work: Store) -> Self {
        let (outputs, sources, named, bound) = (Arc::default(), Arc::default(), Arc::default(), Arc::default());
        let observer = work.observer.clone();
        Self { work, outputs, sources, named, bound, cache: Arc::default(), observer }
    }

    /// The stores of a configuration, the one called `work` for the work. Nothing is asked of them yet.
    ///
    /// # Errors
    /// Names the setting: a secret that is not there, a folder that is none, what [`StoresConfig::check`] finds.
    pub fn open(config: &StoresConfig, work: &str, environment: Environment<'_>) -> Result<Self, SettingError> {
        Self::open_observed(config, work, environment, &observe::nobody())
    }

    /// The same, with somebody who is told of everything that is asked of them.
    ///
    /// # Errors
    /// As [`Stores::open`].
    pub fn open_observed(
        config: &StoresConfig,
        work: &str,
        environment: Environment<'_>,
        observer: &Arc<dyn Observer>,
    ) -> Result<Self, SettingError> {
        config.check(Some(work))?;
        prepare();
        let open = |(name, config): (&String, &StoreConfig)| Named::open(&Opening { name, config, environment, observer }, work);
        let named = config.0.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let place = named.iter().find(|store| store.name == work).map(|store| &store.place);
        let (Some(Place::Bucket { store, .. }) | Some(Place::Folder { store, .. })) = place else {
            return Err(SettingError::new("work.store", format!("the store '{work}' cannot be written to")));
        };
        let work = Self::new(store.clone());
        Ok(Self { named: Arc::new(named), ..work })
    }

    /// Lets jobs write to `uri`.
    pub fn with_output(mut self, uri: &str, store: Store) -> Self {
        Arc::make_mut(&mut self.outputs).insert(uri.to_string(), store);
        self
    }

    /// Lets jobs read `uri`, a file of this machine.
    pub fn with_source(mut self, uri: &str, path: PathBuf) -> Self {
        Arc::make_mut(&mut self.sources).insert(uri.to_string(), path);
        self
    }

    /// Lets a tenant's jobs name these stores of the configuration, and no others.
    pub fn with_tenant(mut self, tenant: &str, stores: BTreeSet<String>) -> Self {
        Arc::make_mut(&mut self.bound).insert(tenant.to_string(), stores);
        self
    }

    /// Where jobs, plans and markers are.
    pub fn work(&self) -> &Store {
        &self.work
    }

    /// What sources cost so far.
    pub fn cache(&self) -> &BlockCache {
        &self.cache
    }

    pub(super) fn named(&self) -> &[Named] {
        &self.named
    }

    /// The store behind a job's output URI: what lies under the URI, and nothing else.
    ///
    /// # Errors
    /// No configured store answers to it for this tenant.
    pub fn output(&self, tenant: &str, uri: &str) -> Result<Store, StoreError> {
        if let Some(store) = self.outputs.get(uri) {
            return Ok(store.clone());
        }
        let (named, path, _) = self.resolve(tenant, uri, Role::Output)?;
        match &named.place {
            Place::Bucket { store, .. } => Ok(store.under(&path)),
            Place::Folder { root, store } => {
                leads_out(root, &path).map_err(|reason| StoreError::Denied { path: uri.into(), reason })?;
                Ok(store.under(&path))
            }
            Place::Web(_) => Err(unknown(uri)),
        }
    }

    /// Where the object at `path` under a job's output URI can be read: a URL where its store is published under one, the
    /// store's own URI otherwise.
    pub fn address(&self, tenant: &str, uri: &str, path: &str) -> String {
        let resolved = self.resolve(tenant, uri, Role::Output).ok();
        let public = resolved.and_then(|(named, below, _)| {
            let folder = if below.is_empty() { below } else { format!("{}/", uri::encoded(below.trim_end_matches('/'))) };
            Some(format!("{}{folder}{}", named.public_place.as_deref()?, uri::encoded(path)))
        });
        public.unwrap_or_else(|| format!("{}/{path}", uri.trim_end_matches('/')))
    }

    /// The source behind a job's input URI.
    ///
    /// # Errors
    /// No configured store answers to it for this tenant.
    pub fn source(&self, tenant: &str, uri: &str) -> Result<SourceRef, StoreError> {
        let (cache, observer) = (self.cache.clone(), self.observer.clone());
        if let Some(path) = self.sources.get(uri) {
            return Ok(SourceRef { name: uri.into(), place: SourcePlace::File(path.clone()), cache, observer });
        }
        let (named, path, target) = self.resolve(tenant, uri, Role::Source)?;
        let place = match (&named.place, target) {
            (Place::Web(web), Target::Web(url)) => SourcePlace::Web { web: web.clone(), url },
            _ if path.is_empty() => return Err(denied(uri, "names no object")),
            (Place::Folder { root, .. }, _) => SourcePlace::Below { root: root.clone(), path },
            (Place::Bucket { store, .. }, _) => SourcePlace::Object { store: store.clone(), path },
            (Place::Web(_), _) => return Err(unknown(uri)),
        };
        Ok(SourceRef { name: uri::shown(uri), place, cache, observer })
    }

    fn resolve(&self, tenant: &str, uri: &str, role: Role) -> Result<(&Named, String, Target), StoreError> {
        let target = uri::parse(uri).map_err(|reason| denied(uri, &reason))?.ok_or_else(|| unknown(uri))?;
        let bound = self.bound.get(tenant);
        let open_to = |store: &&Named| {
            store.roles.contains(&role)
                && store.tenants.as_ref().is_none_or(|tenants| tenants.contains(tenant))
                && bound.is_none_or(|names| names.contains(&store.name))
        };
        let answers = self.named.iter().filter(open_to).filter_map(|named| Some((named, named.below(&target)?)));
        match answers.max_by_key(|(_, (root, _))| *root) {
            Some((named, (_, path))) => Ok((named, path, target)),
            None => Err(self.why_not(uri, &target, role, bound)),
        }
    }

    /// A URL that a store of the web would take but for its guard is refused with the guard's reason.
    fn why_not(&self, uri: &str, target: &Target, role: Role, bound: Option<&BTreeSet<String>>) -> StoreError {
        let (Target::Web(url), Role::Source, None) = (target, role, bound) else { return unknown(uri) };
        let refusal = self.named.iter().find_map(|named| match &named.place {
            Place::Web(web) if named.tenants.is_none() => web.admits(url).err(),
            _ => None,
        });
        refusal.map_or_else(|| unknown(uri), |refused| denied(uri, &refused.to_string()))
    }
}

impl SourceRef {
    /// The URI as it may be shown.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the source is now.
    ///
    /// # Errors
    /// It is missing or cannot be asked for.
    pub async fn identity(&self) -> Result<SourceIdentity, StoreError> {
        match &self.place {
            SourcePlace::Object { store, path } => {
                store.identity(path).await?.ok_or_else(|| StoreError::Missing(self.name.clone()))
            }
            SourcePlace::Web { web, url } => {
                let object = web.find(url).await.map_err(|e| e.of(&self.name))?;
                Ok(object.identity().clone())
            }
            SourcePlace::File(_) | SourcePlace::Below { .. } => Ok(self.open_file()?.identity()),
        }
    }

    /// The source as a file of this machine; none when it is not one.
    ///
    /// # Errors
    /// It is missing, no file, or may not be read.
    pub fn file(&self) -> Result<Option<LocalFile>, StoreError> {
        match self.place {
            SourcePlace::File(_) | SourcePlace::Below { .. } => self.open_file().map(Some),
            SourcePlace::Object { .. } | SourcePlace::Web { .. } => Ok(None),
        }
    }

    fn open_file(&self) -> Result<LocalFile, StoreError> {
        let named = Path::new(&self.name);
        let wrong = |e: std::io::Error| StoreError::io(named, &e);
        match &self.place {
            SourcePlace::File(path) => LocalFile::open(path).map_err(|e| StoreError::io(path, &e)),
            SourcePlace::Below { root, path } => {
                let root = File::open(root).map_err(wrong)?;
                // The kernel itself sees to it that no link leads out, however the folder changes meanwhile; and a
                // pipe does not hold us up.
                let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
                let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
                match openat2(&root, path.as_str(), OpenHow::new().flags(flags).resolve(resolve)) {
                    Ok(file) => LocalFile::of(File::from(file)).map_err(wrong),
                    Err(Errno::EXDEV | Errno::ELOOP) => Err(denied(&self.name, "leads out of the store's folder")),
                    Err(e) => Err(wrong(e.into())),
                }
            }
            SourcePlace::Object { .. } | SourcePlace::Web { .. } => Err(denied(&self.name, "is no file")),
        }
    }

    /// The source, to be read by ranges.
    ///
    /// # Errors
    /// It is missing or cannot be opened.
    pub async fn ranges(&self) -> Result<RangedSource, StoreError> {
        let (name, cache) = (self.name.clone(), self.cache.clone());
        let source = match &self.place {
            SourcePlace::Object { store, path } => {
                let identity = self.identity().await?;
                RangedSource::of_object(&store.operator, store.at(path), name, &identity, cache)
            }
            SourcePlace::Web { web, url } => {
                let object = web.find(url).await.map_err(|e| e.of(&self.name))?;
                let identity = object.identity().clone();
                RangedSource::new(Origin::Web(Box::new(object)), name, &identity, cache)
            }
            SourcePlace::File(_) | SourcePlace::Below { .. } => {
                let file = self.open_file()?;
                RangedSource::new(Origin::File(file.file.clone()), name, &file.identity(), cache)
            }
        };
        Ok(source.observed_by(&self.observer))
    }
}

/// Does a link lead out of `root` on the way to `path`?
fn leads_out(root: &Path, path: &str) -> Result<(), String> {
    let cannot = |e: std::io::Error| format!("the store's folder {} cannot be used: {e}", root.display());
    let real_root = root.canonicalize().map_err(cannot)?;
    let mut place = root.join(path);
    // What does not exist yet is made by us, as plain folders.
    while place.symlink_metadata().is_err() && place.pop() {}
    match place.canonicalize() {
        Ok(real) if real.starts_with(&real_root) => Ok(()),
        _ => Err("leads out of the store's folder".into()),
    }
}

fn denied(uri: &str, reason: &str) -> StoreError {
    StoreError::Denied { path: uri::shown(uri), reason: reason.into() }
}

fn unknown(uri: &str) -> StoreError {
    denied(uri, "no configured store answers to this URI")
}
