//! Plain TCP: one connection for all calls, and one for each bulk.

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

use super::{CHUNK, QUESTION};

/// The end that asks.
pub struct Near {
    to: String,
    kept: Mutex<TcpStream>,
}

impl Near {
    pub async fn start(about: &str) -> Result<Self> {
        let kept = Mutex::new(connect(about).await?);
        let to = about.to_owned();
        Ok(Self { to, kept })
    }

    pub async fn call(&self) -> Result<()> {
        let mut tcp = self.kept.lock().await;
        tcp.write_all(&[b'e'; QUESTION + 1]).await?;
        tcp.read_exact(&mut [0; QUESTION]).await?;
        Ok(())
    }

    pub async fn bulk(&self, length: u64) -> Result<Vec<u8>> {
        let mut tcp = connect(&self.to).await?;
        tcp.write_all(b"b").await?;
        let chunk = vec![7; CHUNK];
        let mut left = length;
        while left > 0 {
            let part = (left as usize).min(CHUNK);
            tcp.write_all(&chunk[..part]).await?;
            left -= part as u64;
        }
        tcp.shutdown().await?;
        let mut answer = Vec::new();
        tcp.read_to_end(&mut answer).await?;
        Ok(answer)
    }
}

async fn connect(to: &str) -> Result<TcpStream> {
    let tcp = TcpStream::connect(to).await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

/// Answers until the process ends.
pub async fn serve() -> Result<String> {
    let listener = TcpListener::bind((super::loopback(), 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(answer(tcp));
        }
    });
    Ok(address.to_string())
}

async fn answer(mut tcp: TcpStream) -> Result<()> {
    tcp.set_nodelay(true)?;
    let mut question = [0; QUESTION + 1];
    loop {
        tcp.read_exact(&mut question[..1]).await?;
        if question[0] != b'e' {
            break;
        }
        tcp.read_exact(&mut question[1..]).await?;
        tcp.write_all(&question[1..]).await?;
    }
    let mut buffer = vec![0; 256 << 10];
    let mut length = 0u64;
    while let read @ 1.. = tcp.read(&mut buffer).await? {
        length += read as u64;
    }
    tcp.write_all(&length.to_le_bytes()).await?;
    Ok(tcp.shutdown().await?)
}
