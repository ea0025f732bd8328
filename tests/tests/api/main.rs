//! What a real API server makes of our definitions and charts.

mod chart;
mod crd;
