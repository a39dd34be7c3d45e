//! Answers that a task makes one after the other, as streams of a service.

use std::pin::Pin;

use futures::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// What a streaming call of a service answers.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
/// Where the task puts them.
pub(super) type Sender<T> = mpsc::Sender<Result<T, Status>>;

/// What comes by a queue.
pub(super) fn received<T: Send + 'static>(queue: mpsc::Receiver<Result<T, Status>>) -> Answers<T> {
    Box::pin(ReceiverStream::new(queue))
}

/// What a task sends, each when its forerunner has been taken; and its error, which ends it.
pub(super) fn sent_by<T, F>(task: impl FnOnce(Sender<T>) -> F) -> Answers<T>
where
    T: Send + 'static,
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let (sender, queue) = mpsc::channel(1);
    let task = task(sender.clone());
    tokio::spawn(async move {
        if let Err(status) = task.await {
            // Who asked may have gone.
            let _ = sender.send(Err(status)).await;
        }
    });
    received(queue)
}
