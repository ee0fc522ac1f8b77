//! Real S3 clients, pointed at one `s3d`: their environment, configuration files and flags.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::s3d::{Credentials, S3d, target_dir};
use crate::shell::{command, run};

/// The clients of one process, with a scratch directory of their own.
pub struct Clients {
    credentials: Credentials,
    authority: String,
    url: String,
    scratch: TempDir,
}

impl Clients {
    /// Clients for `s3d`, which serves TLS.
    ///
    /// # Errors
    /// When there is no temporary directory.
    pub fn new(s3d: &S3d) -> Result<Clients> {
        let endpoint = s3d.endpoint()?;
        Ok(Clients {
            credentials: s3d.credentials().clone(),
            authority: endpoint.authority(),
            url: endpoint.url(),
            scratch: tempfile::tempdir()?,
        })
    }

    /// A directory for whatever a test needs.
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    fn ca(&self) -> Result<&Path> {
        self.credentials.ca.as_deref().context("the real clients are tested over TLS")
    }

    /// The environment that the AWS SDKs read; nothing of the user's own configuration.
    fn aws_environment(&self, command: &mut Command) -> Result<()> {
        // Version 1 of the CLI presigns by Signature Version 2 unless told otherwise.
        let config = self.scratch.path().join("aws-config");
        std::fs::write(&config, "[default]\ns3 =\n    signature_version = s3v4\n")?;
        command
            .env("AWS_CONFIG_FILE", config)
            .env("AWS_ACCESS_KEY_ID", &self.credentials.access_key)
            .env("AWS_SECRET_ACCESS_KEY", &self.credentials.secret_key)
            .env("AWS_DEFAULT_REGION", &self.credentials.region)
            .env("AWS_ENDPOINT_URL", &self.url)
            .env("AWS_CA_BUNDLE", self.ca()?)
            .env("AWS_SHARED_CREDENTIALS_FILE", self.scratch.path().join("no-credentials"))
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_PAGER", "")
            .env_remove("AWS_PROFILE")
            .env_remove("AWS_SESSION_TOKEN");
        Ok(())
    }

    /// `aws WORDS…`; its standard output.
    ///
    /// # Errors
    /// When it fails.
    pub fn aws(&self, words: &[&str]) -> Result<String> {
        let mut aws = Command::new(venv_program("aws"));
        self.aws_environment(aws.args(words))?;
        run(&mut aws)
    }

    /// Runs `tests/clients/SCRIPT` under Python with boto3; its standard output.
    ///
    /// # Errors
    /// When it fails, with what it printed.
    pub fn python(&self, script: &str) -> Result<String> {
        run(&mut self.python_command(script)?)
    }

    /// What runs `tests/clients/SCRIPT` under Python with boto3.
    ///
    /// # Errors
    /// When there is no CA, or the configuration cannot be written.
    pub fn python_command(&self, script: &str) -> Result<Command> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(script);
        let mut python = Command::new(venv_program("python3"));
        python.arg(file).env("PYTHONDONTWRITEBYTECODE", "1");
        self.aws_environment(&mut python)?;
        Ok(python)
    }

    /// `curl WORDS…` with the CA; its standard output.
    ///
    /// # Errors
    /// When it fails.
    pub fn curl(&self, words: &[&str]) -> Result<String> {
        run(command(&["curl", "-sS", "--fail-with-body", "--cacert"]).arg(self.ca()?).args(words))
    }

    /// `s3cmd WORDS…`; its standard output.
    ///
    /// # Errors
    /// When it fails.
    pub fn s3cmd(&self, words: &[&str]) -> Result<String> {
        let config = self.scratch.path().join("s3cfg");
        let text = format!(
            "[default]\naccess_key = {}\nsecret_key = {}\nbucket_location = {}\nhost_base = {host}\nhost_bucket = {host}\n\
             use_https = True\nca_certs_file = {}\nsignature_v2 = False\nmultipart_chunk_size_mb = 5\n",
            self.credentials.access_key,
            self.credentials.secret_key,
            self.credentials.region,
            self.ca()?.display(),
            host = self.authority,
        );
        std::fs::write(&config, text)?;
        run(command(&["s3cmd", "--no-progress", "-c"]).arg(&config).args(words))
    }

    /// `rclone WORDS…`, the remote is `pd:`; its standard output.
    ///
    /// # Errors
    /// When it fails.
    pub fn rclone(&self, words: &[&str]) -> Result<String> {
        let mut rclone = command(&["rclone", "--ca-cert"]);
        rclone.arg(self.ca()?).args(["--retries", "1", "--config", "/dev/null"]).args(words);
        rclone
            // Its AWS SDK would take the bundle for itself, and cannot.
            .env_remove("AWS_CA_BUNDLE")
            .env("RCLONE_CONFIG_PD_TYPE", "s3")
            .env("RCLONE_CONFIG_PD_PROVIDER", "Other")
            .env("RCLONE_CONFIG_PD_ACCESS_KEY_ID", &self.credentials.access_key)
            .env("RCLONE_CONFIG_PD_SECRET_ACCESS_KEY", &self.credentials.secret_key)
            .env("RCLONE_CONFIG_PD_REGION", &self.credentials.region)
            .env("RCLONE_CONFIG_PD_ENDPOINT", &self.url);
        run(&mut rclone)
    }

    /// `restic WORDS…` on the repository in `bucket`; its standard output.
    ///
    /// # Errors
    /// When it fails.
    pub fn restic(&self, bucket: &str, words: &[&str]) -> Result<String> {
        let mut restic = command(&["restic", "--cacert"]);
        restic.arg(self.ca()?).args(["-r", &format!("s3:{}/{bucket}", self.url)]).args(words);
        restic.env("RESTIC_PASSWORD", "a password").env("RESTIC_CACHE_DIR", self.scratch.path().join("restic"));
        restic.env("AWS_ACCESS_KEY_ID", &self.credentials.access_key);
        restic.env("AWS_SECRET_ACCESS_KEY", &self.credentials.secret_key);
        restic.env("AWS_DEFAULT_REGION", &self.credentials.region);
        run(&mut restic)
    }

    /// Mounts `bucket` by s3fs; unmounted when dropped.
    ///
    /// # Errors
    /// When s3fs refuses.
    pub fn s3fs(&self, bucket: &str) -> Result<S3fs> {
        let (passwords, mountpoint) = (self.scratch.path().join("passwd-s3fs"), self.scratch.path().join("s3fs"));
        std::fs::create_dir_all(&mountpoint)?;
        std::fs::write(&passwords, format!("{}:{}", self.credentials.access_key, self.credentials.secret_key))?;
        std::fs::set_permissions(&passwords, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        let mut s3fs = command(&["s3fs", bucket]);
        s3fs.arg(&mountpoint).args(["-o", &format!("url={}", self.url), "-o", "use_path_request_style"]);
        s3fs.args(["-o", &format!("passwd_file={}", passwords.display()), "-o", "multipart_size=10"]);
        s3fs.args(["-o", &format!("endpoint={}", self.credentials.region)]);
        run(s3fs.env("CURL_CA_BUNDLE", self.ca()?))?;
        Ok(S3fs { mountpoint })
    }
}

/// A bucket mounted by s3fs.
pub struct S3fs {
    mountpoint: PathBuf,
}

impl S3fs {
    /// Where.
    pub fn path(&self) -> &Path {
        &self.mountpoint
    }

    /// Whether the kernel knows the mount.
    pub fn is_mounted(&self) -> bool {
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
        mounts.lines().any(|line| line.split(' ').nth(1) == self.mountpoint.to_str())
    }
}

impl Drop for S3fs {
    fn drop(&mut self) {
        let _ = crate::shell::output(command(&["umount", "-l"]).arg(&self.mountpoint));
    }
}

/// A program of the virtual environment that `tests/install-deps.sh` makes, else the one in PATH.
pub fn venv_program(name: &str) -> PathBuf {
    let venv = std::env::var_os("PREDASTORE_TEST_VENV").map_or_else(|| target_dir().join("test-venv"), PathBuf::from);
    let program = venv.join("bin").join(name);
    if program.is_file() { program } else { name.into() }
}
