//! The operations of the eventual plane: changes of counters, sets and maps, and the merging
//! of concurrent values.
//!
//! Plain puts and deletes are in `writes`; what is sent again, in `attempts`.

use bytes::Bytes;
use quorate_proto::{changes, v1};
use quorate_types::{Ack, FieldError, Ladder, Level, Rung};

use crate::answer::{Entry, Updated, Written};
use crate::attempts::Call;
use crate::client::Client;
use crate::error::ClientError;
use crate::options::{ReadOptions, WriteOptions};
use crate::request::{Request, Response};
use crate::typed::Change;

impl Client {
    /// Changes a counter, set or map, in a keyspace of that conflict policy.
    ///
    /// A change with an increment in it is never sent again after an attempt that may have
    /// arrived: it then ends with an unknown effect. The others are repeated, as puts are.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put); reason `POLICY_MISMATCH` where the keyspace holds other things,
    /// `COUNTER_OVERFLOW` where a sum would leave 64 bits.
    pub async fn update(
        &self,
        key: impl Into<Bytes>,
        change: Change,
        options: WriteOptions,
    ) -> Result<Updated, ClientError> {
        let request = Request::Update(v1::UpdateRequest {
            keyspace: self.keyspace.to_string(),
            key: key.into(),
            change: Some(changes::to_wire(change)),
            consistency: options.consistency()?,
            context: options.context.clone(),
            request_id: None,
        });
        match self.run(request, Call::write(&options)).await? {
            Response::Update(answer) => Ok(answer.into()),
            _ => Err(ClientError::malformed("that of an update")),
        }
    }

    /// Adds to a counter; below zero: subtracts. Never applied twice: see
    /// [`update`](Self::update).
    ///
    /// # Errors
    ///
    /// As [`update`](Self::update).
    pub async fn increment(
        &self,
        key: impl Into<Bytes>,
        amount: i64,
        options: WriteOptions,
    ) -> Result<Updated, ClientError> {
        self.update(key, Change::Increment(amount), options).await
    }

    /// Adds elements to a set.
    ///
    /// # Errors
    ///
    /// As [`update`](Self::update).
    pub async fn set_add<E: Into<Bytes>>(
        &self,
        key: impl Into<Bytes>,
        elements: impl IntoIterator<Item = E>,
        options: WriteOptions,
    ) -> Result<Updated, ClientError> {
        let elements = elements.into_iter().map(Into::into).collect();
        self.update(key, Change::Add(elements), options).await
    }

    /// Removes elements from a set, as far as they were seen: by the reader of
    /// [`context`](WriteOptions::context), or else by the coordinator. An addition that was
    /// not seen stays.
    ///
    /// # Errors
    ///
    /// As [`update`](Self::update).
    pub async fn set_remove<E: Into<Bytes>>(
        &self,
        key: impl Into<Bytes>,
        elements: impl IntoIterator<Item = E>,
        options: WriteOptions,
    ) -> Result<Updated, ClientError> {
        let elements = elements.into_iter().map(Into::into).collect();
        self.update(key, Change::Remove(elements), options).await
    }

    /// Puts a value into a field of a map, in place of those that were seen there.
    ///
    /// # Errors
    ///
    /// As [`update`](Self::update).
    pub async fn map_put(
        &self,
        key: impl Into<Bytes>,
        field: impl Into<Bytes>,
        value: impl Into<Bytes>,
        options: WriteOptions,
    ) -> Result<Updated, ClientError> {
        let field = (field.into(), Change::Put(value.into()));
        self.update(key, Change::Fields(vec![field]), options).await
    }

    /// Removes fields of a map, with all of them that was seen.
    ///
    /// # Errors
    ///
    /// As [`update`](Self::update).
    pub async fn map_remove<F: Into<Bytes>>(
        &self,
        key: impl Into<Bytes>,
        fields: impl IntoIterator<Item = F>,
        options: WriteOptions,
    ) -> Result<Updated, ClientError> {
        let fields = fields.into_iter().map(|name| (name.into(), Change::Delete));
        self.update(key, Change::Fields(fields.collect()), options)
            .await
    }

    /// Reads all values of a key, and puts in their place what `merge` makes of them: none if
    /// there is no such key, several where writes were concurrent. The put carries the
    /// context of that read (not that of `options`), so a value that was written meanwhile is
    /// not lost, but stays beside the new one, for the next merge.
    ///
    /// Of the eventual levels; where a keyspace is strong,
    /// [`compare_and_set`](Self::compare_and_set) does it.
    ///
    /// ```no_run
    /// use quorate_client::{Client, WriteOptions};
    ///
    /// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let options = WriteOptions {
    ///     ladder: Some("eventual:quorum".parse()?),
    ///     ..WriteOptions::default()
    /// };
    /// // A shopping cart, one article a line: the union of all carts, and one article more.
    /// client
    ///     .read_modify_write("cart", options, |siblings| {
    ///         let mut articles: Vec<&[u8]> = siblings
    ///             .iter()
    ///             .flat_map(|sibling| sibling.value.split(|byte| *byte == b'\n'))
    ///             .chain([&b"apples"[..]])
    ///             .collect();
    ///         articles.sort();
    ///         articles.dedup();
    ///         articles.join(&b'\n')
    ///     })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`get_with`](Self::get_with) and [`put_with`](Self::put_with); a level that is not
    /// eventual is refused before anything is written.
    pub async fn read_modify_write<V: Into<Bytes>>(
        &self,
        key: impl Into<Bytes>,
        options: WriteOptions,
        merge: impl FnOnce(&[Entry]) -> V,
    ) -> Result<Written, ClientError> {
        let key = key.into();
        let read = ReadOptions {
            ladder: options.ladder.as_ref().map(read_ladder),
            token: options.token.clone(),
            timeout: options.timeout,
            ..ReadOptions::default()
        };
        let got = self.get_with(key.clone(), read).await?;
        if !matches!(got.receipt.level, Some(Level::Eventual { .. })) {
            let problem = "merging is done at eventual levels; compare_and_set at linearizable";
            return Err(FieldError::new("consistency.rungs", problem).into());
        }
        let context = got.receipt.context.clone();
        let seen: Vec<Entry> = got.entry.into_iter().chain(got.siblings).collect();
        let options = WriteOptions {
            context: Some(context),
            ..options
        };
        self.put_with(key, merge(&seen), options).await
    }
}

/// The same levels for reading: how a write is counted and kept is nothing to a read.
fn read_ladder(write: &Ladder) -> Ladder {
    let rungs = write.rungs().iter().map(|rung| Rung {
        level: match rung.level {
            Level::Eventual { copies, .. } => Level::Eventual {
                copies,
                strict: false,
                ack: Ack::Disk,
            },
            level @ (Level::Linearizable | Level::Bounded(_) | Level::Session | Level::Stale) => {
                level
            }
        },
        budget: rung.budget,
    });
    Ladder(rungs.collect())
}
