//! API tokens: 256 random bits, of which only the hash is stored.

use super::Supervisor;
use crate::engine::now;
use crate::{Error, Result};
use castra_proto::api::{CreateToken, CreatedToken, Token};
use castra_proto::{ErrorCode, Timestamp, TokenId};
use castra_store::{NewToken, TokenRow};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// So that a leaked one is recognised by scanners.
const PREFIX: &str = "castra_";

impl Supervisor {
    pub async fn create_token(&self, request: CreateToken) -> Result<CreatedToken> {
        if let Some(session) = request.session_id {
            self.row(session).await?;
        }
        // Two v4 UUIDs are 244 random bits from the operating system.
        let secret = format!("{PREFIX}{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let created_at = now();
        let token = NewToken {
            id: TokenId::now(),
            name: request.name.clone(),
            scope: request.scope,
            session: request.session_id,
            secret_hash: Sha256::digest(&secret).into(),
            created_at,
            expires_at: request.ttl_s.map(|s| Timestamp(created_at.0.saturating_add(s as i64 * 1_000_000))),
        };
        let info = Token {
            id: token.id,
            name: request.name,
            scope: request.scope,
            session_id: request.session_id,
            created_at,
            expires_at: token.expires_at,
        };
        self.engine.store.create_token(token).await?;
        Ok(CreatedToken { token: secret, info })
    }

    pub async fn tokens(&self) -> Result<Vec<Token>> {
        Ok(self.engine.store.tokens().await?.into_iter().map(shown).collect())
    }

    pub async fn delete_token(&self, id: TokenId) -> Result<()> {
        if self.engine.store.delete_token(id).await? {
            return Ok(());
        }
        Err(Error::with_hint(
            ErrorCode::NotFound,
            format!("there is no token {id}"),
            "`castra token list` lists them",
        ))
    }

    /// The token of this secret, if it is known and has not expired. The secret is looked up by its
    /// hash, so that the time it takes says nothing about it.
    pub async fn authenticate(&self, secret: &str) -> Result<Option<Token>> {
        let hash: [u8; 32] = Sha256::digest(secret).into();
        let row = self.engine.store.token_by_hash(&hash).await?;
        Ok(row.filter(|row| row.expires_at.is_none_or(|expires| expires > now())).map(shown))
    }
}

fn shown(row: TokenRow) -> Token {
    Token {
        id: row.id,
        name: row.name,
        scope: row.scope,
        session_id: row.session,
        created_at: row.created_at,
        expires_at: row.expires_at,
    }
}
