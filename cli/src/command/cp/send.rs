//! From here to there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portway_gateway::client::files::{FilesError, RemoteFound};
use portway_gateway::files::error::blocking;
use portway_gateway::files::partial::Replace;
use portway_gateway::files::root::{self, Root};
use portway_gateway::files::{Dir, FileError, listing, sending};
use portway_protocol::files::{Attributes, Entry, EntryKind, FileName, FilePath, PathForm, Via};
use portway_protocol::reason::Reason;
use portway_protocol::target::FilesAccess;

use super::place::Remote;
use super::report::News;
use super::{Compare, Copier, Copies, Tree, local};

/// Copies from here to there.
#[derive(Clone)]
pub(super) struct Send(pub(super) Copier);

/// What of a directory is there already.
type There = BTreeMap<FileName, Entry>;

impl Send {
    /// Copies a file or a directory.
    pub(super) async fn run(&self, from: PathBuf, to: Remote) -> Result<(), FilesError> {
        let looking = from.clone();
        let is_directory =
            blocking(move || Ok::<_, FileError>(std::fs::metadata(looking)?.is_dir()));
        match (is_directory.await?, self.0.terms.tree) {
            (true, Tree::Refused) => Err(FileError::IsDirectory.into()),
            (true, Tree::Copied) => self.tree(&from, to).await,
            (false, _) => self.one(from, to).await,
        }
    }

    async fn one(&self, from: PathBuf, to: Remote) -> Result<(), FilesError> {
        let name = local::name_of(&from).ok_or(FileError::IsDirectory)?;
        let (path, there) = self.place_of_file(to, name).await?;
        let opening = move || {
            // A link that is named itself may lead wherever it does.
            let from = std::fs::canonicalize(from)?;
            let (parent, name) = local::split(&from)?;
            let directory = Root::new(parent).open()?;
            let attributes = local::open(&directory, name.clone())?.attributes;
            Ok::<_, FileError>(Local {
                directory: Arc::new(directory),
                name,
                attributes,
            })
        };
        let file = blocking(opening).await?;
        self.0.tell(News::Found(file.attributes.size)).await;
        let copied = self.try_file(&file, &path, there).await?;
        self.0.tell(copied).await;
        Ok(())
    }

    /// Copies standard input.
    pub(super) async fn pour(&self, to: Remote) -> Result<(), FilesError> {
        if to.form == PathForm::Directory {
            return Err(FilesError::Refused(Reason::FileIsDirectory));
        }
        let client = &self.0.client;
        let uploading = client.upload_stream(
            &to.path,
            tokio::io::stdin(),
            self.0.terms.replace,
            &self.0.counter,
        );
        let transferred = uploading.await?;
        let size = self.0.counter.moved();
        self.0.tell(News::Found(size)).await;
        let path = to.path.to_text();
        self.0
            .tell(News::Copied {
                path,
                size,
                transferred,
            })
            .await;
        Ok(())
    }

    /// Where a file comes to, and what is there.
    async fn place_of_file(
        &self,
        to: Remote,
        own: FileName,
    ) -> Result<(FilePath, Option<Attributes>), FilesError> {
        let path = match to.form {
            PathForm::Directory => to.path.join(own)?,
            PathForm::Plain => match self.find(&to.path).await? {
                Some(RemoteFound::Directory) => to.path.join(own)?,
                Some(RemoteFound::File(there)) => return Ok((to.path, Some(there))),
                None => return Ok((to.path, None)),
            },
        };
        match self.find(&path).await? {
            Some(RemoteFound::Directory) => Err(FilesError::Refused(Reason::FileIsDirectory)),
            Some(RemoteFound::File(there)) => Ok((path, Some(there))),
            None => Ok((path, None)),
        }
    }

    /// What is there, as far as the link lets us look.
    async fn find(&self, path: &FilePath) -> Result<Option<RemoteFound>, FilesError> {
        match self.0.client.find(path, PathForm::Plain).await {
            Ok(found) => Ok(Some(found)),
            Err(FilesError::Refused(Reason::FileNotFound | Reason::PermissionDenied)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Copies a directory, one after the other of those in it.
    async fn tree(&self, from: &Path, to: Remote) -> Result<(), FilesError> {
        let to = match (to.form, local::name_of(from)) {
            (PathForm::Directory, Some(own)) if !local::is_said_directory(from) => {
                to.path.join(own)?
            }
            (PathForm::Directory | PathForm::Plain, _) => to.path,
        };
        let there = self.directory(&to).await?;
        let root = Root::new(from.to_owned());
        let root = blocking(move || Ok::<_, FileError>(Arc::new(root.open()?))).await?;
        let mut copies = Copies::new(&self.0);
        let mut pending = vec![(FilePath::default(), to, there)];
        while let Some((here, to, there)) = pending.pop() {
            let visited = self.visit(&root, (&here, &to, there), &mut copies, &mut pending);
            if let Err(error) = visited.await {
                self.0.failed(&to, error).await?;
            }
        }
        copies.end().await
    }

    /// Copies the files of one directory, and makes those in it.
    async fn visit(
        &self,
        root: &Arc<Dir>,
        (here, to, mut there): (&FilePath, &FilePath, There),
        copies: &mut Copies,
        pending: &mut Vec<(FilePath, FilePath, There)>,
    ) -> Result<(), FilesError> {
        let reading = {
            let (root, here) = (root.clone(), here.clone());
            move || {
                let directory = root::directory(&root, &here)?;
                let listing = listing::read(&directory, FilesAccess::ReadOnly, None, usize::MAX)?;
                Ok::<_, FileError>((Arc::new(directory), listing.entries))
            }
        };
        let (directory, entries) = blocking(reading).await?;
        for entry in entries {
            let path = to.join(entry.name.clone())?;
            let known = there.remove(&entry.name);
            match (entry.kind, entry.via) {
                (EntryKind::File, _) => {
                    let file = Local {
                        directory: directory.clone(),
                        name: entry.name,
                        attributes: entry.attributes,
                    };
                    let known = known.map(|known| known.attributes);
                    let size = file.attributes.size;
                    copies
                        .begin(size, self.clone().file(file, path, known))
                        .await?;
                }
                (EntryKind::Directory, Via::Itself) => match self.directory(&path).await {
                    Ok(known) => pending.push((here.join(entry.name)?, path, known)),
                    Err(error) if super::is_over(&error) => return Err(error),
                    Err(error) => {
                        let path = path.to_text();
                        self.0.tell(News::Failed { path, error }).await;
                    }
                },
                (EntryKind::Directory, Via::Link) | (EntryKind::Other, _) => {
                    let path = path.to_text();
                    self.0.tell(News::Skipped { path }).await;
                }
            }
        }
        Ok(())
    }

    /// Makes a directory there unless it is, and tells what it holds.
    async fn directory(&self, path: &FilePath) -> Result<There, FilesError> {
        if !path.names().is_empty() {
            match self.0.client.make_directory(path).await {
                Ok(()) => return Ok(There::new()),
                Err(FilesError::Refused(Reason::FileExists)) => {}
                Err(error) => return Err(error),
            }
        }
        let mut there = There::new();
        let mut after = None;
        loop {
            let listing = self.0.client.list(path, after.as_ref()).await?;
            after = listing.entries.last().map(|last| last.name.clone());
            there.extend(
                listing
                    .entries
                    .into_iter()
                    .map(|entry| (entry.name.clone(), entry)),
            );
            if !listing.more {
                return Ok(there);
            }
        }
    }

    /// Copies one file.
    async fn file(self, file: Local, to: FilePath, there: Option<Attributes>) -> News {
        match self.try_file(&file, &to, there).await {
            Ok(news) => news,
            Err(error) => News::Failed {
                path: to.to_text(),
                error,
            },
        }
    }

    async fn try_file(
        &self,
        file: &Local,
        to: &FilePath,
        there: Option<Attributes>,
    ) -> Result<News, FilesError> {
        let (path, size) = (to.to_text(), file.attributes.size);
        if let Some(there) = there {
            if self.is_same(file, to, &there).await? {
                return Ok(News::Unchanged { path, size });
            }
            if self.0.terms.replace == Replace::Never {
                return Err(FilesError::Refused(Reason::FileExists));
            }
        }
        let opening = {
            let (directory, name) = (file.directory.clone(), file.name.clone());
            move || local::open(&directory, name.clone())
        };
        let terms = self.0.terms;
        let uploading = self
            .0
            .client
            .upload(to, opening, terms.replace, &self.0.counter);
        let transferred = uploading.await?;
        Ok(News::Copied {
            path,
            size,
            transferred,
        })
    }

    async fn is_same(
        &self,
        file: &Local,
        to: &FilePath,
        there: &Attributes,
    ) -> Result<bool, FilesError> {
        if !self.0.may_be_same(&file.attributes, there) {
            return Ok(false);
        }
        match self.0.terms.compare {
            Compare::Attributes => Ok(true),
            Compare::Content => {
                let (directory, name) = (file.directory.clone(), file.name.clone());
                let here = blocking(move || sending::digest(local::open(&directory, name)?));
                let (here, there) = (here.await?, self.0.client.digest(to).await?);
                Ok(here == there)
            }
        }
    }
}

/// A file of this machine.
struct Local {
    directory: Arc<Dir>,
    name: FileName,
    attributes: Attributes,
}
