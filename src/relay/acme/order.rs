//! One certificate, asked for: who we are, for which domains, proof that they are ours, and what is
//! given for it.

use std::time::{Duration, Instant};

use instant_acme::{
    AuthorizationStatus, ChallengeType, Identifier, NewAccount, NewOrder, Order, OrderStatus,
    Problem, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use tokio::time::timeout;

use super::files::{ACCOUNT, Account, Files, IssuedCertificate};
use super::pace::FailureKind;
use super::resolver::Resolver;
use super::settings::Settings;
use super::web::Web;
use crate::relay::login::chain;
use crate::show;

/// How long all of it may take.
const LIMIT: Duration = Duration::from_secs(600);

/// An authority that has something to do is asked whether it is done; for so long.
const POLLS: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(500))
    .backoff(1.5)
    .timeout(Duration::from_secs(180));

/// What an authority says that does not know an account.
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// What it says also of an account that was ended there.
const UNAUTHORIZED: &str = "urn:ietf:params:acme:error:unauthorized";

/// What it says when something is wrong on its side, or in between.
const AWAY: [&str; 2] = [
    "urn:ietf:params:acme:error:badNonce",
    "urn:ietf:params:acme:error:serverInternal",
];

/// Why there is no certificate.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: FailureKind,
    pub(super) why: String,
    /// How long the authority wants to be left alone.
    pub(super) retry_after: Option<Duration>,
    /// It is the account that is of no use.
    is_account: bool,
}

/// Characters that are kept of what somebody says who gives no certificate.
const MAX_WHY: usize = 1000;

impl Failure {
    pub(super) fn refused(why: impl ToString) -> Self {
        // It goes into the log: a line, and nothing that could pass for another.
        let why = show::cut(&why.to_string(), MAX_WHY).into_owned();
        Self {
            kind: FailureKind::Refused,
            why,
            retry_after: None,
            is_account: false,
        }
    }
}

impl From<instant_acme::Error> for Failure {
    fn from(error: instant_acme::Error) -> Self {
        use instant_acme::Error as E;
        let away = |why: String| Self {
            kind: FailureKind::Away,
            ..Self::refused(why)
        };
        match error {
            E::Other(error) => away(chain(&*error)),
            E::Api(problem) if kind_of(&problem) == Some(NO_ACCOUNT) => Self {
                is_account: true,
                ..Self::refused(problem)
            },
            E::Api(problem) if kind_of(&problem) == Some(UNAUTHORIZED) => Self::refused(format!(
                "{problem}; if the relay's account was ended there, remove {ACCOUNT} in its directory"
            )),
            // It works on the order still.
            E::Timeout(next) => {
                let left = next.map(|next| next.saturating_duration_since(Instant::now()));
                Self {
                    retry_after: left,
                    ..Self::refused("it has not come to an end with the order")
                }
            }
            E::Json(error) => away(format!("what it answers is not ACME: {error}")),
            E::Api(problem) if kind_of(&problem).is_some_and(|kind| AWAY.contains(&kind)) => {
                away(problem.to_string())
            }
            error => Self::refused(error),
        }
    }
}

/// Asks for a certificate. Who asks must be reachable by `resolver` at port 443 of the domains.
///
/// # Errors
///
/// Why there is none.
pub(super) async fn order(
    settings: &Settings,
    files: &Files,
    resolver: &Resolver,
) -> Result<IssuedCertificate, Failure> {
    let web = Web::new(&settings.trust).map_err(|error| Failure::refused(error.message))?;
    let asked = timeout(LIMIT, ask(settings, files, resolver, &web)).await;
    resolver.forget();
    let asked = asked.unwrap_or_else(|_| {
        let seconds = LIMIT.as_secs();
        Err(Failure::refused(format!("it took longer than {seconds} s")))
    });
    asked.map_err(|failure| Failure {
        retry_after: web.retry_after().or(failure.retry_after),
        ..failure
    })
}

async fn ask(
    settings: &Settings,
    files: &Files,
    resolver: &Resolver,
    web: &Web,
) -> Result<IssuedCertificate, Failure> {
    let domains = &settings.domains;
    let named = domains.iter().map(|name| Identifier::Dns(name.clone()));
    let named: Vec<_> = named.collect();
    let wanted = NewOrder::new(&named);
    let begin = async || {
        let account = account(settings, files, web).await?;
        account.new_order(&wanted).await.map_err(Failure::from)
    };
    let mut order = match begin().await {
        Err(failure) if failure.is_account => {
            tracing::warn!(why = %failure.why, "the ACME account is of no use: another is made");
            files.forget_account();
            begin().await?
        }
        order => order?,
    };
    prove(&mut order, resolver).await?;
    if order.poll_ready(&POLLS).await? != OrderStatus::Ready {
        return Err(Failure::refused(why(&mut order).await));
    }
    let (request, key) = request(domains.clone()).map_err(Failure::refused)?;
    order.finalize_csr(&request).await?;
    Ok(IssuedCertificate {
        directory: settings.directory.clone(),
        chain: order.poll_certificate(&POLLS).await?,
        key,
    })
}

/// The account at the authority, which is made if there is none.
async fn account(
    settings: &Settings,
    files: &Files,
    web: &Web,
) -> Result<instant_acme::Account, Failure> {
    let contact = settings.email.iter().map(|email| format!("mailto:{email}"));
    let contact: Vec<_> = contact.collect();
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    let builder = instant_acme::Account::builder_with_http(Box::new(web.clone()));
    let (account, kept) = match files.account(&settings.directory) {
        Some(kept) if kept.email == settings.email => {
            let known = builder.from_credentials(kept.credentials).await;
            return known.map_err(unusable);
        }
        Some(mut kept) => {
            let copy = serde_json::to_vec(&kept.credentials).map_err(Failure::refused)?;
            let account = builder.from_credentials(kept.credentials).await;
            let account = account.map_err(unusable)?;
            account.update_contacts(&contact).await?;
            kept.credentials = serde_json::from_slice(&copy).map_err(Failure::refused)?;
            kept.email.clone_from(&settings.email);
            (account, kept)
        }
        None => {
            let new = NewAccount {
                contact: &contact,
                terms_of_service_agreed: true,
                only_return_existing: false,
            };
            let made = builder.create(&new, settings.directory.clone(), None);
            let (account, credentials) = made.await?;
            let kept = Account {
                directory: settings.directory.clone(),
                email: settings.email.clone(),
                credentials,
            };
            (account, kept)
        }
    };
    if let Err(error) = files.keep_account(&kept).await {
        // A certificate is worth more than to be known the next time.
        tracing::error!(%error, "the ACME account cannot be kept");
    }
    Ok(account)
}

/// Why there is no account by what is kept of one: its key may be none.
fn unusable(error: instant_acme::Error) -> Failure {
    use instant_acme::Error as E;
    let is_key = matches!(error, E::KeyRejected | E::Crypto);
    let failure = Failure::from(error);
    let is_account = is_key || failure.is_account;
    Failure {
        is_account,
        ..failure
    }
}

/// Sees to it that each question is answered, and says that it may be asked.
async fn prove(order: &mut Order, resolver: &Resolver) -> Result<(), Failure> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            other => return Err(Failure::refused(format!("an authorization is {other:?}"))),
        }
        let challenge = authorization.challenge(ChallengeType::TlsAlpn01);
        let mut challenge = challenge.ok_or_else(|| {
            Failure::refused(
                "the authority does not ask by tls-alpn-01, and the relay knows no other",
            )
        })?;
        let domain = challenge.identifier().to_string().to_ascii_lowercase();
        let proof = challenge.key_authorization();
        let digest = proof.digest();
        let made = resolver.answer(&domain, digest.as_ref());
        made.map_err(Failure::refused)?;
        challenge.set_ready().await?;
    }
    Ok(())
}

/// A request for a certificate with a new key: in DER, and the key in PEM.
fn request(domains: Vec<String>) -> Result<(Vec<u8>, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(domains)?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key)?;
    Ok((request.der().to_vec(), key.serialize_pem()))
}

/// What the authority has seen instead of the answer that it wanted.
async fn why(order: &mut Order) -> String {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let Ok(mut authorization) = authorization else {
            continue;
        };
        let Ok(state) = authorization.refresh().await else {
            continue;
        };
        let mut errors = state.challenges.iter().filter_map(|it| it.error.as_ref());
        if let Some(error) = errors.next_back() {
            return format!("{} is not proven: {error}", state.identifier());
        }
    }
    "the order is invalid".to_owned()
}

fn kind_of(problem: &Problem) -> Option<&str> {
    problem.r#type.as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_authority_says_is_one_line() {
        let said = format!("no\nINFO all is well\x1b[2J{}", "x".repeat(1 << 20));
        let why = Failure::refused(said).why;
        assert!(why.chars().count() <= MAX_WHY);
        assert!(!why.chars().any(char::is_control), "{why:?}");
    }
}
