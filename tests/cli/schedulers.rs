//! The scripts in `examples` that compress a model in parts, on many machines: run here as their schedulers would.

use std::path::Path;
use std::process::Command;

use super::parts::{merge, source};
use super::{Ran, models};

/// A script in `examples`, which finds the tool where cargo has put it.
fn script(name: &str, args: &[&Path]) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name));
    command.args(args).env("DF11", env!("CARGO_BIN_EXE_df11"));
    command
}

/// Open MPI starts the parts, and the same command again goes on. It runs on a machine without a network, and as any user.
/// Needs `mpirun`; `make test` sees to it.
#[test]
fn mpirun_starts_the_parts() {
    let _enough = super::SHARED_MEMORY.lock();
    let dir = tempfile::tempdir().unwrap();
    let (source, whole) = source(dir.path());
    let out = dir.path().join("out");
    let mpirun = |more: &[&str]| {
        let mut command = script("mpirun.sh", &[&source, &out]);
        command.args(more).env("MPIRUN", "mpirun --oversubscribe -np 2");
        // As root in a container, with no shell for other machines, and nobody to talk to.
        command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        command.env("OMPI_MCA_plm", "isolated").env("OMPI_MCA_oob_tcp_if_include", "lo");
        Ran::of(command.output().unwrap())
    };
    // Options that are wrong end all of it, and nothing is merged.
    assert_ne!(mpirun(&["--preset", "qwen-3"]).code, 0);
    assert!(!out.exists());
    let ran = mpirun(&[]);
    assert!(ran.code == 0 && ran.out.matches("this part is finished").count() == 2, "{}{}", ran.out, ran.err);
    models::same(&models::tree(&out), &models::tree(&whole));
}

/// The script of a Slurm array: its tasks in the environment that Slurm gives them, and the merge that waits for them.
#[test]
fn a_slurm_array_does_the_parts() {
    let dir = tempfile::tempdir().unwrap();
    let (source, whole) = source(dir.path());
    let out = dir.path().join("out");
    let task = |id: u32| {
        let mut command = script("slurm-array.sh", &[&source, &out]);
        command.env("SLURM_ARRAY_TASK_ID", id.to_string()).env("SLURM_ARRAY_TASK_MIN", "1");
        command.env("SLURM_ARRAY_TASK_MAX", "3").env("SLURM_ARRAY_TASK_COUNT", "3").env("SLURM_CPUS_PER_TASK", "2");
        command
    };
    // The second task fails, is submitted again by itself, and goes on.
    Ran::of(task(1).output().unwrap()).good();
    assert_ne!(Ran::of(task(2).env("DF11", "false").output().unwrap()).code, 0);
    Ran::of(task(3).output().unwrap()).good();
    merge(&source, &out, &[]).bad(2, &["part 2 of 3"]);
    let mut again = task(2);
    again.env("SLURM_ARRAY_TASK_MIN", "2").env("SLURM_ARRAY_TASK_MAX", "2").env("SLURM_ARRAY_TASK_COUNT", "1");
    Ran::of(again.env("PARTS", "3").output().unwrap()).good();
    merge(&source, &out, &[]).good();
    models::same(&models::tree(&out), &models::tree(&whole));
}
