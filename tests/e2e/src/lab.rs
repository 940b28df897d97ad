//! Three machines on one: a network namespace each for the nodes and the witness, a network between
//! the three, and one by which clients come. Packets can be lost on the first, and travel slowly.
//! It takes root, `ip`, `nft` and `tc`, and goes away when it is dropped.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::geteuid;

/// Labs that can be there at once; the number is in their addresses.
const LABS_MAX: u8 = 200;
/// What waits at a slow link before it is lost, and what goes at once.
const SLOW_LINK: [&str; 4] = ["burst", "4kb", "latency", "1s"];

/// A machine of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// That of the first node.
    A,
    /// That of the second.
    B,
    /// That of the witness.
    Witness,
}

impl Machine {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::A, Self::B, Self::Witness];

    const fn letter(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
            Self::Witness => "w",
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::A => 1,
            Self::B => 2,
            Self::Witness => 3,
        }
    }
}

/// The namespaces and the networks of one pair.
#[derive(Debug)]
pub struct Lab(Place);

/// What a lab of this number is called.
#[derive(Clone, Copy, Debug)]
struct Place(u8);

impl Lab {
    /// Sets one up.
    ///
    /// # Errors
    /// Why it cannot be: what is missing here.
    pub fn set_up() -> Result<Self, String> {
        if !geteuid().is_root() {
            return Err("network namespaces need root".to_owned());
        }
        for (tool, asks) in [("ip", "-V"), ("tc", "-V"), ("nft", "--version")] {
            run(&mut plain(tool, &[asks]), "").map_err(|error| {
                format!("{tool} is needed (Debian: iproute2, nftables): {error}")
            })?;
        }
        // One at a time looks for a number; the lock goes with the file.
        let lock = File::create(std::env::temp_dir().join("kine2-e2e-labs.lock"));
        let lock = lock.map_err(|error| error.to_string())?;
        lock.lock().map_err(|error| error.to_string())?;
        let place = (0..LABS_MAX).map(Place).find(Place::take);
        let lab = Self(place.ok_or("all numbers of labs are in use")?);
        lab.0.connect()?;
        Ok(lab)
    }

    /// Where clients reach a machine.
    #[must_use]
    pub fn client_address(&self, machine: Machine) -> String {
        self.0.client_address(machine)
    }

    /// Where the other machines reach it.
    #[must_use]
    pub fn address(&self, machine: Machine) -> String {
        self.0.address(machine)
    }

    /// A program that runs on a machine.
    #[must_use]
    pub fn command(&self, machine: Machine, program: &Path) -> Command {
        self.0.command(machine, program)
    }

    /// From now on packets that one machine sends the other are lost.
    ///
    /// # Panics
    /// If nft does not do it.
    pub fn cut(&self, from: Machine, to: Machine) {
        self.lose(&self.address(from), to);
    }

    /// From now on what clients send a machine is lost.
    ///
    /// # Panics
    /// If nft does not do it.
    pub fn cut_clients(&self, to: Machine) {
        self.lose(&self.0.client_side(), to);
    }

    fn lose(&self, from: &str, to: Machine) {
        let rule = format!("add element inet faults lost {{ {from} }}\n");
        let mut command = self.command(to, Path::new("nft"));
        run(command.args(["-f", "-"]), &rule).unwrap();
    }

    /// From now on a node's packets to the other machines share so many kbit/s.
    ///
    /// # Panics
    /// If tc does not do it.
    pub fn slow_down(&self, node: Machine, kbits: u32) {
        let mut command = self.command(node, Path::new("tc"));
        command.args(["qdisc", "replace", "dev", "peers", "root", "tbf", "rate"]);
        command.arg(format!("{kbits}kbit")).args(SLOW_LINK);
        run(&mut command, "").unwrap();
    }

    /// All packets arrive again, and at once.
    ///
    /// # Panics
    /// If nft does not do it.
    pub fn heal(&self) {
        for machine in Machine::ALL {
            let mut command = self.command(machine, Path::new("nft"));
            run(command.args(["-f", "-"]), "flush set inet faults lost\n").unwrap();
        }
        for node in [Machine::A, Machine::B] {
            let mut command = self.command(node, Path::new("tc"));
            command.args(["qdisc", "del", "dev", "peers", "root"]);
            // There is none if the link was not slow.
            let _ = run(&mut command, "");
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.0.take_down();
    }
}

impl Place {
    /// Whether this number is free now; a lab whose process has gone is taken down.
    fn take(&self) -> bool {
        let bridge = self.bridge();
        let alias = format!("/sys/class/net/{bridge}/ifalias");
        if let Ok(owner) = fs::read_to_string(alias) {
            if Path::new("/proc").join(owner.trim()).exists() {
                return false;
            }
            self.take_down();
        }
        let owner = std::process::id();
        ip(&format!(
            "link add {bridge} type bridge\nlink set {bridge} alias {owner} up"
        ))
        .is_ok()
    }

    /// The witness's machine has the bridge of the network between the three.
    fn connect(&self) -> Result<(), String> {
        let bridge = self.bridge();
        ip(&format!(
            "address add {}/24 dev {bridge}",
            self.client_side()
        ))?;
        for machine in Machine::ALL {
            ip(&format!("netns add {}", self.namespace(machine)))?;
        }
        let witness = self.namespace(Machine::Witness);
        let inside = |machine, lines: &str| {
            let mut command = self.command(machine, Path::new("ip"));
            run(command.args(["-batch", "-"]), lines)
        };
        inside(
            Machine::Witness,
            &format!(
                "link set lo up\nlink add peers type bridge\naddress add {}/24 dev peers\n\
                 link set peers up\n",
                self.address(Machine::Witness)
            ),
        )?;
        for machine in [Machine::A, Machine::B] {
            let (letter, node) = (machine.letter(), self.namespace(machine));
            ip(&format!(
                "link add {bridge}{letter} type veth peer name clients netns {node}\n\
                 link set {bridge}{letter} master {bridge} up\n\
                 link add peers netns {node} type veth peer name to-{letter} netns {witness}\n"
            ))?;
            inside(
                Machine::Witness,
                &format!("link set to-{letter} master peers up\n"),
            )?;
            inside(
                machine,
                &format!(
                    "link set lo up\naddress add {}/24 dev clients\nlink set clients up\n\
                     address add {}/24 dev peers\nlink set peers up\n",
                    self.client_address(machine),
                    self.address(machine)
                ),
            )?;
        }
        for machine in Machine::ALL {
            let rules = "table inet faults {\n\
                         set lost { type ipv4_addr; }\n\
                         chain arriving {\n\
                         type filter hook input priority 0;\n\
                         ip saddr @lost drop\n}\n}\n";
            let mut command = self.command(machine, Path::new("nft"));
            run(command.args(["-f", "-"]), rules)?;
        }
        Ok(())
    }

    fn bridge(&self) -> String {
        format!("k2e{}", self.0)
    }

    fn namespace(&self, machine: Machine) -> String {
        format!("k2e{}-{}", self.0, machine.letter())
    }

    fn client_side(&self) -> String {
        format!("10.213.{}.254", self.0)
    }

    fn client_address(&self, machine: Machine) -> String {
        format!("10.213.{}.{}", self.0, machine.number())
    }

    fn address(&self, machine: Machine) -> String {
        format!("10.214.{}.{}", self.0, machine.number())
    }

    fn command(&self, machine: Machine, program: &Path) -> Command {
        let mut command = plain("ip", &["netns", "exec", &self.namespace(machine)]);
        command.arg(program);
        command
    }

    /// What was not set up is not there to be deleted; the rest goes.
    fn take_down(&self) {
        let bridge = self.bridge();
        for machine in Machine::ALL {
            // Its networks go with it, but later: the name must be free at once.
            let _ = ip(&format!("link delete {bridge}{}", machine.letter()));
            let _ = ip(&format!("netns delete {}", self.namespace(machine)));
        }
        let _ = ip(&format!("link delete {bridge}"));
    }
}

fn plain(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// Commands of `ip`, one a line.
fn ip(lines: &str) -> Result<(), String> {
    run(&mut plain("ip", &["-batch", "-"]), &format!("{lines}\n"))
}

/// Runs a command with this input; what it said, if it fails.
fn run(command: &mut Command, input: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).map_err(failed)?;
    drop(stdin);
    let output = child.wait_with_output().map_err(failed)?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}
