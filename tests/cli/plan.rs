//! `df11 plan`.

use super::run_on;
use super::support::sparse::{self, Dense};

#[test]
#[ignore]
fn try_it() {
    for m in sparse::MODELS {
        let dir = std::path::Path::new("/tmp/plan-models").join(m.name);
        std::fs::create_dir_all(&dir).unwrap();
        m.write(&dir);
        let _ = Dense::named(m.name);
        println!("{}", run_on("plan", &dir, &[]).good());
    }
}
