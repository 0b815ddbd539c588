fn main() {
    match bulkhead_dataplane::bpf::Object::load(&Default::default()) {
        Ok(mut o) => println!("{:?}", o.verified_instructions()),
        Err(e) => { let mut s: &dyn std::error::Error = &e; println!("{s}"); while let Some(n) = s.source() { println!("{n}"); s = n; } }
    }
}
