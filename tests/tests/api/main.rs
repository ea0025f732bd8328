//! What a real API server makes of our definitions, charts and scripts.

mod chart;
mod crd;
mod demo;
