//! HTTP checks against recorded and hand-made answers.
