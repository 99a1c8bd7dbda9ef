//! Whether this node's fleet has the settings that it started with: one that starts from a copy learns that later.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    backend::{Backend, BackendError, BackendErrorKind, FleetSettings, Lazy},
    denylist::Denylist,
};

/// Whether this node has the settings of its fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Agreement {
    /// The backend says so.
    #[default]
    Reached,
    /// The node runs from its copy: the backend has not been reached since the start. Nothing can be recorded, and the
    /// node is not in step.
    Pending,
    /// The backend holds other settings than the copy that the node started from: an alarm. The node refuses every token
    /// until it is started again.
    Differs {
        /// The setting.
        setting: &'static str,
        /// What the fleet has; of a secret, nothing.
        theirs: String,
        /// What the copy has.
        ours: String,
    },
}

/// How it stands, and what stood in the way last.
#[derive(Clone, Default)]
pub(super) struct Agreed(Arc<Mutex<(Agreement, Option<String>)>>);

impl Agreed {
    pub(super) fn get(&self) -> (Agreement, Option<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, agreement: Agreement, why: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (agreement, why);
    }

    /// A backend that nothing reaches before it has agreed to the settings of the copy. It is asked whenever it would be
    /// used, with pauses.
    ///
    /// It gets the copy's settings: one that holds none, since it was emptied, must come back with the same secret.
    pub(super) fn first(
        &self,
        backend: Arc<dyn Backend>,
        settings: FleetSettings,
        path: &Path,
        denylist: Arc<Denylist>,
        away: &BackendError,
    ) -> impl Backend {
        self.set(Agreement::Pending, Some(away.to_string()));
        let (this, path) = (self.clone(), path.display().to_string());
        let parts = Arc::new((settings, path, denylist));
        Lazy::untried(move || {
            let (this, backend, parts) = (this.clone(), Arc::clone(&backend), Arc::clone(&parts));
            async move {
                let (settings, path, denylist) = &*parts;
                this.ask(&backend, settings, path, denylist).await?;
                Ok(backend)
            }
        })
    }

    async fn ask(
        &self,
        backend: &dyn Backend,
        ours: &FleetSettings,
        path: &str,
        denylist: &Denylist,
    ) -> Result<(), BackendError> {
        if let Agreement::Differs { setting, theirs, ours } = self.get().0 {
            let what = format!(
                "this node's copy {path} has another {setting} ({ours}) than its fleet ({theirs}): the node refuses \
                 every token; start it again"
            );
            return Err(BackendError::new(BackendErrorKind::Settings, what));
        }
        let theirs = backend.agree(ours).await.map_err(|error| {
            self.set(Agreement::Pending, Some(error.to_string()));
            let what = format!("this node runs from its copy {path}, and has not reached its backend since the start");
            BackendError::new(error.kind(), what).because(error)
        })?;
        let secret = || (!theirs.is_of(ours)).then(|| ("secret", "another".to_owned(), "not shown".to_owned()));
        let Some((setting, theirs, ours)) = theirs.difference(ours).or_else(secret) else {
            #[cfg(feature = "tracing")]
            tracing::info!(copy = path, "the backend is there: this node does not run from its copy any more");
            self.set(Agreement::Reached, None);
            return Ok(());
        };
        #[cfg(feature = "tracing")]
        tracing::error!(
            copy = path,
            setting,
            theirs,
            ours,
            "this node's copy is not of its fleet: it refuses every token"
        );
        let what = format!("the fleet's {setting} is {theirs}, that of this node's copy {path} is {ours}");
        self.set(Agreement::Differs { setting, theirs, ours }, Some(what.clone()));
        // Nothing will ever keep it in step: it is as if it had been refused at the start.
        denylist.abandon();
        Err(BackendError::new(BackendErrorKind::Settings, what))
    }
}
