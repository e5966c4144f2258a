"""What a piece of work is: what was asked, and everything its result depended on."""
