//! Two writers that do not know of each other, and a third who merges what they wrote: a
//! shopping cart, one article a line.
//!
//! `quorate dev` in one terminal, `cargo run -p quorate-client --example merge` in another;
//! `QUORATE_ENDPOINTS` names other nodes than the usual ones.
#![allow(clippy::print_stdout)]

use bytes::Bytes;
use quorate_client::{Client, ClientOptions, Entry, ReadOptions, WriteOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut options = ClientOptions::default();
    if let Ok(endpoints) = std::env::var("QUORATE_ENDPOINTS") {
        options.endpoints = endpoints.split(',').map(str::to_owned).collect();
    }
    let client = Client::connect(options)?;
    let eventual = WriteOptions {
        ladder: Some("eventual:quorum".parse()?),
        ..WriteOptions::default()
    };

    // Neither has seen the other's value: an empty context says so.
    for article in ["apples", "pears"] {
        let unseen = WriteOptions {
            context: Some(Bytes::new()),
            ..eventual.clone()
        };
        client.put_with("cart", article, unseen).await?;
    }
    client.read_modify_write("cart", eventual, union).await?;

    let read = ReadOptions {
        ladder: Some("eventual:quorum".parse()?),
        ..ReadOptions::default()
    };
    let got = client.get_with("cart", read).await?;
    let cart = got.entry.map(|entry| entry.value).unwrap_or_default();
    println!("{}", String::from_utf8_lossy(&cart));
    Ok(())
}

/// All articles of all carts, each once.
fn union(carts: &[Entry]) -> Vec<u8> {
    let lines = carts
        .iter()
        .flat_map(|it| it.value.split(|it| *it == b'\n'));
    let mut articles: Vec<&[u8]> = lines.filter(|line| !line.is_empty()).collect();
    articles.sort_unstable();
    articles.dedup();
    articles.join(&b'\n')
}
