//! The token that lets a client in: `CODEWIRE_TOKEN`, else the file `token` in the node's
//! directory, else a new one, which is then in that file.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::error::{Error, Result};
use crate::home::{Home, write_private};

/// The fewest characters of a token: 16 random bytes, which nobody guesses.
const SHORTEST: usize = 16;

/// The token of this node, made if there is none.
///
/// # Errors
///
/// `config_invalid` for one that is empty or too short to be a secret: it would let anybody in.
pub(crate) fn token(home: &Home) -> Result<String> {
    let path = home.token();
    let (found, place) = match std::env::var("CODEWIRE_TOKEN") {
        Ok(token) => (token, "CODEWIRE_TOKEN".to_owned()),
        Err(_) => match std::fs::read_to_string(&path) {
            Ok(token) => (token, path.display().to_string()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let mut bytes = [0; 24];
                getrandom::fill(&mut bytes).map_err(Error::internal)?;
                let token = URL_SAFE_NO_PAD.encode(bytes);
                write_private(&path, token.as_bytes())?;
                return Ok(token);
            }
            Err(error) => return Err(error.into()),
        },
    };
    let token = found.trim();
    if token.len() < SHORTEST || token.contains(char::is_whitespace) {
        return Err(Error::new(
            "config_invalid",
            format!("the token in {place} is no secret: it needs {SHORTEST} characters or more"),
        )
        .hint("remove it, and the node makes one"));
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once_and_an_empty_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().to_owned()).unwrap();
        let made = token(&home).unwrap();
        assert_eq!(made.len(), 32);
        assert_eq!(token(&home).unwrap(), made);
        std::fs::write(home.token(), "\n").unwrap();
        assert_eq!(token(&home).unwrap_err().code, "config_invalid");
    }
}
