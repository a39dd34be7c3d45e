//! The client: connections, a name for its writes, a keyspace. How it learns where keys live.
//!
//! Not here: the operations (`reads`, `writes`, `scans`, `admin`), and how they are sent
//! (`attempts`).

use std::sync::{Arc, Weak};
use std::time::Duration;

use quorate_proto::v1;
use quorate_types::{ClientId, NodeId, RangeId, Revision, validate_keyspace_name};

use crate::admin::Admin;
use crate::endpoints::Endpoints;
use crate::environment;
use crate::error::ClientError;
use crate::identity::Identity;
use crate::limits::ATTEMPT_TIMEOUT;
use crate::options::ClientOptions;
use crate::pipeline::{Lanes, Pipeline};
use crate::request::{self, Request, Response};
use crate::routes::Routes;
use crate::session::Session;

/// A connection to a Quorate cluster, and a keyspace in it. Cheap to clone; clones share
/// connections and the name under which writes are applied once.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) keyspace: Arc<str>,
    /// Requests travel on streams, not as calls of their own.
    pub(crate) lanes: Option<Arc<Lanes>>,
}

/// The planes that a request may be served by: a ladder may name both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Planes {
    pub(crate) eventual: bool,
    pub(crate) strong: bool,
}

fn is_eventual(rung: &v1::Rung) -> bool {
    rung.level() == v1::Level::Eventual
}

/// What all clones of a client share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) endpoints: Endpoints,
    pub(crate) routes: Routes,
    pub(crate) timeout: Duration,
    pub(crate) attempt_timeout: Duration,
    pub(crate) retries: bool,
}

impl Client {
    /// Prepares a client. Connections are made when the first request needs them, so this
    /// succeeds while no server is up. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`ClientError::Invalid`]: an option is not valid.
    pub fn connect(options: ClientOptions) -> Result<Self, ClientError> {
        options.validate()?;
        let client_id = options
            .client_id
            .unwrap_or_else(environment::draw_client_id);
        Ok(Self {
            shared: Arc::new(Shared {
                endpoints: Endpoints::prepare(&options)?,
                routes: Routes::default(),
                timeout: options.timeout,
                attempt_timeout: options.attempt_timeout,
                retries: options.retries,
            }),
            identity: Arc::new(Identity::new(client_id, options.first_sequence)),
            keyspace: options.keyspace.into(),
            lanes: None,
        })
    }

    /// The same client in another keyspace.
    ///
    /// # Errors
    ///
    /// [`ClientError::Invalid`]: not a name of a keyspace.
    pub fn keyspace(&self, name: &str) -> Result<Self, ClientError> {
        validate_keyspace_name(name)?;
        Ok(Self {
            keyspace: name.into(),
            ..self.clone()
        })
    }

    /// The keyspace that requests go to.
    pub fn keyspace_name(&self) -> &str {
        &self.keyspace
    }

    /// The id that this client's writes carry now. With more than [`SEQUENCE_SPREAD_MAX`]
    /// writes under way it goes on under a fresh one.
    ///
    /// [`SEQUENCE_SPREAD_MAX`]: crate::limits::SEQUENCE_SPREAD_MAX
    pub fn client_id(&self) -> ClientId {
        self.identity.client()
    }

    /// The endpoints as they were given.
    pub fn endpoints(&self) -> Vec<String> {
        self.shared.endpoints.addresses()
    }

    /// How long a request may take, unless it says otherwise.
    pub fn timeout(&self) -> Duration {
        self.shared.timeout
    }

    /// The operator's side: keyspaces, nodes, ranges.
    pub fn admin(&self) -> Admin {
        Admin::new(self.clone())
    }

    /// A client whose requests travel on one bidirectional stream for each endpoint, many in
    /// flight. Each pipeline has streams and a client id of its own.
    pub fn pipeline(&self) -> Pipeline {
        let lanes = Lanes::new(self.shared.endpoints.len());
        Pipeline::new(Self {
            identity: Arc::new(self.identity.sibling()),
            lanes: Some(Arc::new(lanes)),
            ..self.clone()
        })
    }

    /// A session: it reads what it has written and read, or newer.
    pub fn session(&self) -> Session {
        Session::new(self.clone())
    }

    /// The range that the request goes to, if known. Asks to learn it if requests keep
    /// coming that do not know.
    pub(crate) fn range_for(&self, request: &Request) -> Option<RangeId> {
        let (keyspace, key) = request::routing(request)?;
        self.shared.routes.range_of(keyspace, key)
    }

    /// Which planes may serve the request, as far as is known.
    pub(crate) fn planes_of(&self, request: &Request) -> Planes {
        let rungs = request::rungs(request);
        let by_default =
            || request::keyspace_name(request).is_some_and(|it| self.shared.routes.is_eventual(it));
        Planes {
            eventual: match rungs {
                [] => matches!(request, Request::Update(_)) || by_default(),
                rungs => rungs.iter().any(is_eventual),
            },
            strong: match rungs {
                [] => !by_default(),
                rungs => !rungs.iter().all(is_eventual),
            },
        }
    }

    /// Takes note of what an answer tells by the way.
    pub(crate) fn learn_from(
        &self,
        request: &Request,
        response: &Response,
        expected: Option<RangeId>,
        index: usize,
    ) {
        let shared = &self.shared;
        shared.endpoints.is_well(index);
        let Some(receipt) = request::receipt_of(response) else {
            return;
        };
        self.identity.observe(Revision(receipt.revision));
        let range = RangeId(receipt.range);
        let eventual = receipt.level.as_ref().is_some_and(is_eventual);
        if let (true, Some(keyspace)) = (
            request::rungs(request).is_empty(),
            request::keyspace_name(request),
        ) {
            shared.routes.note_default(keyspace, eventual);
        }
        // Whoever serves the eventual plane leads nothing by that.
        if receipt.role() == v1::Role::Leader && range.0 != 0 && !eventual {
            shared.routes.note_leader(range, NodeId(receipt.node));
        }
        match (expected, request::routing(request)) {
            (Some(expected), Some((keyspace, _))) if expected != range && range.0 != 0 => {
                shared.routes.forget_keyspace(keyspace);
            }
            (None, Some(_)) if shared.routes.is_lesson_due(shared.endpoints.now_millis()) => {
                self.spawn_lesson(request);
            }
            _ => {}
        }
    }

    /// Learns where the request's keys live, if that was not tried just now.
    pub(crate) fn learn_in_background(&self, request: &Request) {
        let shared = &self.shared;
        if shared.routes.take_lesson(shared.endpoints.now_millis()) {
            self.spawn_lesson(request);
        }
    }

    fn spawn_lesson(&self, request: &Request) {
        if let Some((keyspace, _)) = request::routing(request) {
            let lesson = learn(Arc::downgrade(&self.shared), keyspace.to_owned());
            tokio::spawn(lesson);
        }
    }
}

/// Asks who answers at each endpoint, and how the keyspace is laid out. Failures are not
/// told: requests find their way without, and the next lesson comes.
async fn learn(shared: Weak<Shared>, keyspace: String) {
    let Some(shared) = shared.upgrade() else {
        return;
    };
    let introductions = shared.endpoints.strangers().into_iter().map(|index| {
        let mut admin = shared.endpoints.get(index).admin();
        async move {
            let status = admin.status(v1::StatusRequest {});
            let answer = tokio::time::timeout(ATTEMPT_TIMEOUT, status)
                .await
                .ok()?
                .ok()?;
            Some((index, NodeId(answer.into_inner().answered_by)))
        }
    });
    for (index, node) in futures::future::join_all(introductions)
        .await
        .into_iter()
        .flatten()
    {
        shared.endpoints.introduce(index, node);
    }
    let index = shared
        .endpoints
        .pick(None, crate::endpoints::Visited::default());
    let mut admin = shared.endpoints.get(index).admin();
    let list = admin.list_keyspaces(v1::ListKeyspacesRequest { name: keyspace });
    if let Ok(Ok(answer)) = tokio::time::timeout(ATTEMPT_TIMEOUT, list).await {
        for keyspace in &answer.into_inner().keyspaces {
            shared.routes.note_keyspace(keyspace);
        }
    }
}
