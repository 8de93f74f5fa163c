//! The least server with async-net that answers a probe. `tests/bench/runtime` measures it beside
//! livelet.

use std::io;

use async_net::{TcpListener, TcpStream};
use smol::LocalExecutor;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n";

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_default();
    let executor = LocalExecutor::new();
    smol::block_on(executor.run(async {
        let listener = TcpListener::bind(address).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            executor.spawn(answer(stream)).detach();
        }
    }))
}

async fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    let mut bytes = [0; 2048];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut bytes).await? {
            0 => return Ok(()),
            count => head.extend(bytes.iter().take(count)),
        }
    }
    stream.write_all(ANSWER).await
}
