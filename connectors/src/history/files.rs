//! Local files that are durable before they are visible.
//!
//! `object_store`'s local files are never synced: after a power cut a Delta log entry could be there and empty. Here an
//! entry is written beside its place, synced, and then linked into place.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path as FilePath;
use std::path::PathBuf;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use taktline_engine::fault;

/// Makes the names in a folder durable.
///
/// # Errors
/// The folder can't be opened or synced.
pub(super) fn sync_folder(folder: &FilePath) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The local file system with durable puts.
#[derive(Debug)]
pub(super) struct DurableFiles(LocalFileSystem);

impl DurableFiles {
    pub fn new() -> Self {
        DurableFiles(LocalFileSystem::new())
    }
}

impl fmt::Display for DurableFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "durable {}", self.0)
    }
}

#[async_trait]
impl ObjectStore for DurableFiles {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let create = match opts.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => return self.0.put_opts(location, payload, opts).await,
        };
        let path = self.0.path_to_filesystem(location)?;
        blocking(move || put(&path, &payload, create)).await?;
        Ok(PutResult {
            e_tag: None,
            version: None,
        })
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let path = self.0.path_to_filesystem(location)?;
        let inner = self.0.put_multipart_opts(location, opts).await?;
        Ok(Box::new(DurableUpload { inner, path }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

fn put(path: &FilePath, payload: &PutPayload, create: bool) -> Result<()> {
    let folder = path.parent().unwrap_or(FilePath::new("/"));
    // A name that ends in # and digits is one that object_store's listings leave out.
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!("#{}", uuid::Uuid::new_v4().as_u128()));
    let beside = PathBuf::from(beside);
    let written = fs::create_dir_all(folder)
        .and_then(|()| File::create(&beside))
        .and_then(|mut file| {
            fault::point("log.write")?;
            payload.iter().try_for_each(|bytes| file.write_all(bytes))?;
            fault::point("log.sync")?;
            file.sync_all()
        })
        .and_then(|()| {
            fault::point("log.link")?;
            if create {
                fs::hard_link(&beside, path)
            } else {
                fs::rename(&beside, path)
            }
        });
    if create || written.is_err() {
        // Best effort: what stays behind is invisible.
        let _ = fs::remove_file(&beside);
    }
    written
        .and_then(|()| fault::point("log.folder"))
        .and_then(|()| sync_folder(folder))
        .map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => Error::AlreadyExists {
                path: path.display().to_string(),
                source: source.into(),
            },
            _ => failed(path, source),
        })
}

#[derive(Debug)]
struct DurableUpload {
    inner: Box<dyn MultipartUpload>,
    path: PathBuf,
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let result = self.inner.complete().await?;
        let path = self.path.clone();
        blocking(move || {
            let synced = File::open(&path).and_then(|file| file.sync_all());
            synced
                .and_then(|()| path.parent().map_or(Ok(()), sync_folder))
                .map_err(|source| failed(&path, source))
        })
        .await?;
        Ok(result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|source| Error::JoinError { source })?
}

fn failed(path: &FilePath, source: io::Error) -> Error {
    Error::Generic {
        store: "local files",
        source: format!("{}: {source}", path.display()).into(),
    }
}
