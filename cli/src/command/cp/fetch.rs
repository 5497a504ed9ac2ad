//! From there to here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use portway_gateway::client::files::{FilesError, RemoteFound};
use portway_gateway::files::error::blocking;
use portway_gateway::files::partial::{Executable, Partial, PartialName, Replace, Unfinished};
use portway_gateway::files::root::{self, Root};
use portway_gateway::files::{Dir, FileError, sending};
use portway_protocol::files::{Attributes, Entry, EntryKind, FileName, FilePath, Via};
use portway_protocol::reason::Reason;

use super::place::Remote;
use super::report::News;
use super::{Copier, Copies, Tree, local};

/// Copies from there to here.
#[derive(Clone)]
pub(super) struct Fetch(pub(super) Copier);

impl Fetch {
    /// Copies a file or a directory.
    pub(super) async fn run(&self, from: Remote, to: PathBuf) -> Result<(), FilesError> {
        let path = from.path;
        match self.0.client.find(&path, from.form).await? {
            RemoteFound::File(attributes) => {
                let name = path.names().last().cloned().ok_or(FilesError::Invalid)?;
                let (directory, name) = blocking(move || local::place_of_file(&to, name)).await?;
                self.0.tell(News::Found(attributes.size)).await;
                let copying = self.try_file(&path, attributes, Arc::new(directory), name);
                self.0.tell(copying.await?).await;
                Ok(())
            }
            RemoteFound::Directory if self.0.terms.tree == Tree::Refused => {
                Err(FilesError::Refused(Reason::FileIsDirectory))
            }
            RemoteFound::Directory => self.tree(path, &to).await,
        }
    }

    /// Writes a file to standard output.
    pub(super) async fn print(&self, from: Remote) -> Result<(), FilesError> {
        let path = from.path;
        let RemoteFound::File(attributes) = self.0.client.find(&path, from.form).await? else {
            return Err(FilesError::Refused(Reason::FileIsDirectory));
        };
        let size = attributes.size;
        self.0.tell(News::Found(size)).await;
        let mut output = tokio::io::stdout();
        let copying = self
            .0
            .client
            .copy_to(&path, &attributes, &mut output, &self.0.counter);
        let transferred = copying.await?;
        let path = path.to_text();
        self.0
            .tell(News::Copied {
                path,
                size,
                transferred,
            })
            .await;
        Ok(())
    }

    /// Copies a directory, one after the other of those in it.
    async fn tree(&self, from: FilePath, to: &Path) -> Result<(), FilesError> {
        let to = local::place_of_tree(to, from.names().last());
        let root = Root::new(to.clone());
        let root = blocking(move || {
            local::make(&to)?;
            Ok::<_, FileError>(Arc::new(root.open()?))
        });
        let root = root.await?;
        let mut copies = Copies::new(&self.0);
        let mut pending = vec![(from, FilePath::default())];
        while let Some((there, here)) = pending.pop() {
            let opening = {
                let (root, here) = (root.clone(), here.clone());
                move || Ok::<_, FileError>(Arc::new(root::directory(&root, &here)?))
            };
            let visited = async {
                let directory = blocking(opening).await?;
                self.visit((&there, &here), &directory, &mut copies, &mut pending)
                    .await
            };
            if let Err(error) = visited.await {
                self.0.failed(&there, error).await?;
            }
        }
        copies.end().await
    }

    /// Copies the files of one directory, and notes the directories in it.
    async fn visit(
        &self,
        (there, here): (&FilePath, &FilePath),
        directory: &Arc<Dir>,
        copies: &mut Copies,
        pending: &mut Vec<(FilePath, FilePath)>,
    ) -> Result<(), FilesError> {
        let mut after = None;
        loop {
            let listing = self.0.client.list(there, after.as_ref()).await?;
            after = listing.entries.last().map(|last| last.name.clone());
            for Entry {
                name,
                kind,
                via,
                attributes,
            } in listing.entries
            {
                let path = there.join(name.clone())?;
                match (kind, via) {
                    (EntryKind::File, _) => {
                        let size = attributes.size;
                        let copy = self.clone().file(path, attributes, directory.clone(), name);
                        copies.begin(size, copy).await?;
                    }
                    (EntryKind::Directory, Via::Itself) => {
                        let (directory, wanted) = (directory.clone(), name.clone());
                        blocking(move || local::make_in(&directory, &wanted)).await?;
                        pending.push((path, here.join(name)?));
                    }
                    (EntryKind::Directory, Via::Link) | (EntryKind::Other, _) => {
                        let path = path.to_text();
                        self.0.tell(News::Skipped { path }).await;
                    }
                }
            }
            if !listing.more {
                return Ok(());
            }
        }
    }

    /// Copies one file.
    async fn file(
        self,
        from: FilePath,
        wanted: Attributes,
        directory: Arc<Dir>,
        name: FileName,
    ) -> News {
        let path = from.to_text();
        match self.try_file(&from, wanted, directory, name).await {
            Ok(news) => news,
            Err(error) => News::Failed { path, error },
        }
    }

    async fn try_file(
        &self,
        from: &FilePath,
        wanted: Attributes,
        directory: Arc<Dir>,
        name: FileName,
    ) -> Result<News, FilesError> {
        let path = from.to_text();
        let there = {
            let (directory, name) = (directory.clone(), name.clone());
            blocking(move || Ok::<_, FileError>(root::look(&directory, name))).await?
        };
        if let Some(there) = there {
            if there.kind == EntryKind::Directory {
                return Err(FileError::IsDirectory.into());
            }
            if self.is_same(from, &wanted, &directory, &there).await? {
                let size = wanted.size;
                return Ok(News::Unchanged { path, size });
            }
            if self.0.terms.replace == Replace::Never {
                return Err(FileError::Exists.into());
            }
        }
        let opening = {
            let (directory, name) = (directory.clone(), name.clone());
            move |wanted: &Attributes| {
                let parts = [name.as_bytes(), wanted.etag.as_bytes()];
                let executable = if wanted.executable {
                    Executable::Yes
                } else {
                    Executable::No
                };
                let directory = directory.try_clone()?;
                Partial::open(
                    directory,
                    PartialName::of(&parts),
                    executable,
                    Unfinished::Stays,
                )
            }
        };
        let getting = self
            .0
            .client
            .download(from, wanted, opening, &self.0.counter);
        let (partial, attributes, transferred) = getting.await?;
        let (replace, modified) = (self.0.terms.replace, attributes.modified_ms);
        blocking(move || partial.finish(&name, replace, Some(modified))).await?;
        Ok(News::Copied {
            path,
            size: attributes.size,
            transferred,
        })
    }

    async fn is_same(
        &self,
        from: &FilePath,
        wanted: &Attributes,
        directory: &Arc<Dir>,
        there: &Entry,
    ) -> Result<bool, FilesError> {
        if there.kind != EntryKind::File || !self.0.may_be_same(&there.attributes, wanted) {
            return Ok(false);
        }
        match self.0.terms.compare {
            super::Compare::Attributes => Ok(true),
            super::Compare::Content => {
                let (directory, name) = (directory.clone(), there.name.clone());
                let here = blocking(move || sending::digest(local::open(&directory, name)?));
                let (here, there) = (here.await?, self.0.client.digest(from).await?);
                Ok(here == there)
            }
        }
    }
}
