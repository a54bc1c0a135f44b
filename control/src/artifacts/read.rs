//! Reading with a check: the digest is taken on the way, and the end is an error if it is another one.

use bytes::Bytes;
use futures_util::stream::try_unfold;
use futures_util::{Stream, TryStreamExt as _};
use sha2::{Digest as _, Sha256};

use super::blobs::{Pieces, blob_path};
use super::{ArtifactError, Artifacts, Digest};

impl Artifacts {
    /// The bytes with a digest. Only after the stream's end without an error were they the right ones.
    ///
    /// # Errors
    /// [`ArtifactError::Missing`]; in the stream, [`ArtifactError::Damaged`] at the end.
    pub async fn read(
        &self,
        digest: Digest,
    ) -> Result<impl Stream<Item = Result<Bytes, ArtifactError>> + Send + use<>, ArtifactError>
    {
        let pieces = self.unchecked(digest).await?;
        let artifacts = self.clone();
        let checked = try_unfold((pieces, Sha256::new()), move |(mut pieces, mut hasher)| {
            let artifacts = artifacts.clone();
            async move {
                if let Some(piece) = pieces.try_next().await? {
                    hasher.update(&piece);
                    return Ok(Some((piece, (pieces, hasher))));
                }
                if Digest::finish(hasher) == digest {
                    return Ok(None);
                }
                Err(artifacts.not_itself(digest).await)
            }
        });
        Ok(checked)
    }

    /// Reads a blob to its end, for the check only.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn verify(&self, digest: Digest) -> Result<u64, ArtifactError> {
        let mut pieces = std::pin::pin!(self.read(digest).await?);
        let mut bytes = 0;
        while let Some(piece) = pieces.try_next().await? {
            bytes += piece.len() as u64;
        }
        Ok(bytes)
    }

    async fn unchecked(&self, digest: Digest) -> Result<Pieces, ArtifactError> {
        match self.0.blobs.read(&blob_path(&digest)).await? {
            Some(pieces) => Ok(pieces),
            None => {
                self.lost(digest).await?;
                Err(ArtifactError::Missing(digest))
            }
        }
    }

    /// The next who brings these bytes has to store them.
    async fn lost(&self, digest: Digest) -> Result<(), ArtifactError> {
        let mut tx = self.0.store.begin().await?;
        tx.blob_lost(&digest.to_string()).await?;
        Ok(tx.commit().await?)
    }

    /// A second look tells damage in the store from damage on the way, which must not cost anybody the bytes.
    async fn not_itself(&self, digest: Digest) -> ArtifactError {
        match self.second_look(digest).await {
            Ok(true) => ArtifactError::Interrupted(format!(
                "{digest} was damaged on its way; it lies whole"
            )),
            Ok(false) => ArtifactError::Damaged(digest),
            Err(error) => error,
        }
    }

    async fn second_look(&self, digest: Digest) -> Result<bool, ArtifactError> {
        let mut pieces = self.unchecked(digest).await?;
        let mut hasher = Sha256::new();
        while let Some(piece) = pieces.try_next().await? {
            hasher.update(&piece);
        }
        if Digest::finish(hasher) == digest {
            return Ok(true);
        }
        tracing::error!(%digest, "stored bytes are not what their name says; they are put aside");
        // First the word, then the deed: bytes that are away must not count as stored.
        self.lost(digest).await?;
        self.0.blobs.put_aside(&digest).await?;
        Ok(false)
    }
}
